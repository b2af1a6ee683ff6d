// An identity provider for development: it lets in any name with any password. Yours takes its place.
import { Provider } from "oidc-provider";

const AUDIENCE = "urn:chat";
const resource = { scope: "", audience: AUDIENCE, accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } } };

/** A plugin of Vite that runs it beside the page. */
export function provider(issuer, page) {
  const oidc = new Provider(issuer, {
    clients: [{ client_id: "page", redirect_uris: [page], token_endpoint_auth_method: "none" }],
    clientBasedCORS: () => true,
    features: {
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        useGrantedResource: () => true,
        getResourceServerInfo: () => resource,
      },
    },
  });
  const run = ({ httpServer }) => {
    const server = oidc.listen(new URL(issuer).port, new URL(issuer).hostname);
    httpServer.once("close", () => server.close());
  };
  return { name: "provider", configureServer: run, configurePreviewServer: run };
}
