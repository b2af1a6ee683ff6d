import { type User, UserManager } from "oidc-client-ts";

const manager = new UserManager({
  authority: import.meta.env.VITE_ISSUER,
  client_id: import.meta.env.VITE_CLIENT_ID,
  redirect_uri: `${location.origin}/`,
});

/** Go to the provider, which comes back to this page. */
export const signIn = () => manager.signinRedirect();

/** Return who is signed in, if somebody is. */
export async function signedIn(): Promise<User | null> {
  if (!new URLSearchParams(location.search).has("state")) return await manager.getUser();
  const user = await manager.signinRedirectCallback();
  history.replaceState({}, "", location.pathname);
  return user;
}

/** The token that the service verifies. The client asks for it before each connection, and before it expires. */
export const token = async () => (await manager.getUser())?.access_token;
