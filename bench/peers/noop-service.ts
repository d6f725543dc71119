/**
 * The microservice of every contender: answers at once, or after DELAY ms. PORT.
 * It sends X-Job-Id back as Longhaul asks of a service, but not on the path /unnamed.
 * On bare sockets, so that it takes as little as may be of the cores that the contenders need.
 */
const answer = '{"success":true,"message":"done","output_path":"/output/x.glb"}';
const start = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${answer.length}\r\n`;
const delay = Number(process.env.DELAY ?? 0);

Bun.listen<{ text: string }>({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  socket: {
    open(socket) {
      socket.data = { text: "" };
    },
    data(socket, part) {
      let text = socket.data.text + part.toString("latin1");
      for (;;) {
        const head = text.indexOf("\r\n\r\n");
        if (head < 0) break;
        const lines = text.slice(0, head + 2);
        const length = Number(/\r\ncontent-length: *(\d+)/i.exec(lines)?.[1] ?? 0);
        if (text.length < head + 4 + length) break;
        const named = lines.startsWith("POST /unnamed ") ? undefined : /\r\n(x-job-id: *[^\r]+)/i.exec(lines)?.[1];
        const bytes = `${start}${named ? `${named}\r\n` : ""}\r\n${answer}`;
        text = text.slice(head + 4 + length);
        const last = lines.includes("\r\nconnection: close\r\n");
        const send = () => (last ? socket.end(bytes) : socket.write(bytes));
        if (delay > 0) setTimeout(send, delay);
        else send();
      }
      socket.data.text = text;
    },
  },
});
console.log("ready");
