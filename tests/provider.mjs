// An identity provider: `node provider.mjs <port> <keys.json>`. It gives its two clients access tokens that are JWTs,
// signed with the algorithm at the end of the resource's name.
import { readFileSync } from "node:fs";
import { Provider } from "oidc-provider";

const [port, keys] = process.argv.slice(2);
const client = (id) => ({
  client_id: id,
  client_secret: "only-for-this-test",
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client("ada"), client("bob")],
  jwks: { keys: JSON.parse(readFileSync(keys, "utf-8")) },
  extraTokenClaims: () => ({ roles: ["agent"] }),
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({
        scope: "connect",
        audience: "chat",
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: resource.split(":").at(-1) } },
      }),
    },
  },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
