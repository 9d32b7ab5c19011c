// A receiver that verifies what it is told with `standardwebhooks`, as its authors say to.
// Each line that it reads is the secret from then on; each line that it writes is JSON.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

let webhook = null;

function say(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

function judge(body, headers) {
  try {
    return { verified: true, told: webhook.verify(body, headers) };
  } catch (error) {
    return { verified: false, why: error.message };
  }
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString("utf8");
    const verdict = judge(body, request.headers);
    say({ ...verdict, body, headers: request.headers });
    response.writeHead(verdict.verified ? 204 : 400).end();
  });
});

createInterface({ input: process.stdin }).on("line", (secret) => {
  webhook = new Webhook(secret);
  say({ secret: "taken" });
});

server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
