import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { signedIn } from "./auth";

const user = await signedIn();
createRoot(document.getElementById("root")!).render(<StrictMode><App user={user} /></StrictMode>);
