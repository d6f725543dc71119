/** The microservice of every contender: answers at once. PORT. */
const answer = '{"success":true,"message":"done","output_path":"/output/x.glb"}';
Bun.serve({
  port: Number(process.env.PORT),
  hostname: "127.0.0.1",
  async fetch(request) {
    if (request.method === "POST") await request.text();
    return new Response(answer, { headers: { "content-type": "application/json" } });
  },
});
console.log("ready");
