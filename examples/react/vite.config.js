import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { provider } from "./provider.mjs";

const server = { port: 5173, strictPort: true };

export default defineConfig({
  plugins: [react(), provider("http://127.0.0.1:9000", "http://localhost:5173/")],
  server: { ...server, proxy: { "/ws": { target: "http://127.0.0.1:8000", ws: true } } },
  preview: server, // with the same proxy
});
