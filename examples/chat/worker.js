// chat: WebSockets. Open http://chat.localhost:8080/ in two windows of a browser, or, with any client:
//
//   ws://chat.localhost:8080/room     what one says all get
//   ws://chat.localhost:8080/echo     what you say comes back
//
// A room lives in this worker's isolate: when the worker is replaced (save this file and see), its sockets
// close with code 1012, and the page connects again.

const room = new Set();

function upgrade(serve) {
  const [client, server] = Object.values(new WebSocketPair());
  server.accept();
  serve(server);
  return new Response(null, { status: 101, webSocket: client });
}

function echo(socket) {
  socket.addEventListener("message", (event) => socket.send(event.data));
}

function join(socket) {
  room.add(socket);
  socket.addEventListener("close", () => room.delete(socket));
  socket.addEventListener("message", (event) => {
    for (const other of room) {
      try {
        other.send(event.data);
      } catch {
        other.close(1008, "too slow"); // 8 MiB wait for it
      }
    }
  });
}

export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (request.headers.get("upgrade") === "websocket") {
      return pathname === "/echo" ? upgrade(echo) : upgrade(join);
    }
    return new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
  },
};

const page = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>chat</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
ol { list-style: none; padding: 0; min-height: 10rem }
input { font: inherit; width: 100%; padding: .5rem; box-sizing: border-box }
</style>
<h1>chat</h1><ol></ol><form><input autofocus placeholder="say something" maxlength="500"></form>
<script>
const list = document.querySelector("ol"), form = document.querySelector("form"), input = document.querySelector("input");
let socket;
function say(text) { const li = document.createElement("li"); li.textContent = text; list.append(li); }
function connect() {
  socket = new WebSocket(location.origin.replace("http", "ws") + "/room");
  socket.onmessage = (event) => say(event.data);
  socket.onclose = (event) => { say("(closed, " + event.code + "; trying again)"); setTimeout(connect, 1000); };
}
form.onsubmit = (event) => { event.preventDefault(); if (input.value) socket.send(input.value); input.value = ""; };
connect();
</script></html>
`;
