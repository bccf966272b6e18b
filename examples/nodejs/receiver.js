// Takes callbacks whose signatures are right: receiver.js PORT, the secret in SORAKA_SECRET.
"use strict";

const { createHmac, timingSafeEqual } = require("node:crypto");
const http = require("node:http");

const TOLERANCE_S = 300;
const MAX_BODY = 1 << 20;
const KEY = Buffer.from(process.env.SORAKA_SECRET.replace(/^whsec_/, ""), "base64");
const done = new Set(); // a table of yours, with what the callback changes

function genuine(id, timestamp, signatures, body) {
  if (!id || !signatures || !/^\d{1,11}$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const mac = createHmac("sha256", KEY).update(`${id}.${timestamp}.`).update(body);
  const right = Buffer.from(`v1,${mac.digest("base64")}`);
  // several while the secret changes; compared in constant time
  return signatures.split(" ").some((one) => {
    const given = Buffer.from(one);
    return given.length === right.length && timingSafeEqual(given, right);
  });
}

async function answer(request) {
  if (request.method !== "POST") return 405;
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY) return 413;
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks);
  const id = request.headers["webhook-id"];
  const { "webhook-timestamp": timestamp, "webhook-signature": signatures } = request.headers;
  if (!genuine(id, timestamp, signatures, body)) return 401; // tried again later
  if (!done.has(id)) { // it may come twice
    done.add(id);
    console.log(`${id} ${body}`);
  }
  return 200;
}

http
  .createServer(async (request, response) => {
    const status = await answer(request).catch(() => 400); // it broke off
    response.writeHead(status, status === 413 ? { connection: "close" } : {});
    response.end(status === 200 ? '{"result": true}' : "");
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
