/** The microservice of every contender: answers at once, or after DELAY ms. PORT. */
const answer = '{"success":true,"message":"done","output_path":"/output/x.glb"}';
const delay = Number(process.env.DELAY ?? 0);
Bun.serve({
  port: Number(process.env.PORT),
  hostname: "127.0.0.1",
  async fetch(request) {
    if (request.method === "POST") await request.text();
    if (delay > 0) await Bun.sleep(delay);
    return new Response(answer, { headers: { "content-type": "application/json" } });
  },
});
console.log("ready");
