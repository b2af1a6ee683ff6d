import type { User } from "oidc-client-ts";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { ask, rooms } from "./api";
import { signIn, token } from "./auth";

export function App({ user }: { user: User | null }) {
  if (!user) return <button onClick={signIn}>Sign in</button>;
  return (
    <>
      <h1>Hello {user.profile.sub}</h1>
      <Room name="lobby" />
      <Question />
    </>
  );
}

/** What is said in a room, with what was said before, and after each reconnect what was missed. */
function Room({ name }: { name: string }) {
  const [lines, setLines] = useState<string[]>([]);
  const [status, setStatus] = useState("");
  const socket = useRef<ReturnType<typeof rooms>>(undefined);

  useEffect(() => {
    const room = rooms(
      { room: name, after: 0 },
      {
        token,
        onState: ({ status }) => setStatus(status),
        onRefused: ({ status, detail }) => setStatus(`refused: ${status} ${detail}`),
      },
    );
    room.on("said", ({ text }) => setLines((lines) => [...lines, text]));
    socket.current = room;
    return () => {
      room.close();
      setLines([]);
    };
  }, [name]);

  return (
    <section aria-label={`Room ${name}`}>
      <h2>
        Room {name} <small>{status}</small>
      </h2>
      <ul>{lines.map((line, number) => <li key={number}>{line}</li>)}</ul>
      <Line label="Say" onLine={(text) => socket.current?.send({ text })} />
    </section>
  );
}

/** A question whose answer is streamed, and can be stopped. */
function Question() {
  const [answer, setAnswer] = useState("");
  const [running, setRunning] = useState<AbortController>();
  const socket = useRef<ReturnType<typeof ask>>(undefined);

  useEffect(() => {
    const model = ask({ token });
    socket.current = model;
    return () => model.close();
  }, []);

  async function onQuestion(text: string) {
    const controller = new AbortController();
    setRunning(controller);
    setAnswer("");
    try {
      for await (const word of socket.current!.stream({ text }, { signal: controller.signal })) {
        setAnswer((answer) => `${answer} ${word.text}`);
      }
    } catch (error) {
      setAnswer((answer) => `${answer} (${controller.signal.aborted ? "stopped" : error})`);
    }
    setRunning(undefined);
  }

  return (
    <section aria-label="Question">
      <h2>Question</h2>
      <p>{answer}</p>
      {running ? <button onClick={() => running.abort()}>Stop</button> : <Line label="Ask" onLine={onQuestion} />}
    </section>
  );
}

function Line({ label, onLine }: { label: string; onLine: (text: string) => unknown }) {
  function onSubmit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    onLine(String(new FormData(event.currentTarget).get("text")));
    event.currentTarget.reset();
  }

  return (
    <form onSubmit={onSubmit}>
      <input name="text" aria-label={label} required />
      <button>{label}</button>
    </form>
  );
}
