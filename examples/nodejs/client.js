// A client of soraka's Thrift service: client.js HOST PORT TOPIC URL
//
// Shows each call and each error, then submits a message for each line of its standard input. A
// token, if one is needed, is in SORAKA_TOKEN.
"use strict";

const readline = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");
const thrift = require("thrift");
const Soraka = require("./build/gen/Soraka");
const types = require("./build/gen/soraka_types");

const TIMEOUT_MS = 10_000; // longer than soraka takes to say that it is unavailable
const PATIENCE_MS = 60_000;
const HOUR = 3_600_000;
const MINUTE = 60_000;
const UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057";
const FINAL = [
  types.InvalidRequest, // wrong, and stays wrong
  types.TopicNotFound, // an operator has to make the topic
  types.MessageNotFound, // never was, or has been forgotten
  types.TooLate, // called, cancelled or dead by now
  types.KeyReused, // this key stands for another message
  types.NotAuthenticated, // without a token, or with a wrong one
  types.NotAllowed, // the token lacks the right
];

/** Opened when needed, and anew after it broke. */
class Connection {
  #host;
  #port;
  #connection = null;
  #client;
  #broken;

  constructor(host, port) {
    this.#host = host;
    this.#port = port;
  }

  /** Asks until there is an answer. Each call carries ids, so that it is safe to repeat. */
  async call(ask) {
    const deadline = Date.now() + PATIENCE_MS;
    for (let pause = 100; ; ) {
      let wait = pause;
      try {
        await this.#open();
        return await this.#answer(ask(this.#client));
      } catch (error) {
        // the latter: of another version of the IDL
        if (isFinal(error) || error instanceof thrift.Thrift.TApplicationException) throw error;
        if (error instanceof types.Unavailable) {
          wait = Number(error.retry_after);
        } else {
          // what was asked may have been done, or not; a late answer must not be the next
          this.close();
          pause = Math.min(2 * pause, 2000);
        }
        if (Date.now() + wait > deadline) throw error;
      }
      await sleep(wait);
    }
  }

  close() {
    this.#connection?.destroy();
    this.#connection = null;
  }

  async #open() {
    if (this.#connection) return;
    const connection = thrift.createConnection(this.#host, this.#port, {
      transport: thrift.TFramedTransport,
      protocol: thrift.TBinaryProtocol,
      connect_timeout: TIMEOUT_MS,
      timeout: TIMEOUT_MS,
    });
    this.#connection = connection;
    this.#client = thrift.createClient(Soraka, connection);
    // the library leaves calls without an answer when their connection breaks
    this.#broken = new Promise((_, reject) => {
      const broke = (error) => {
        if (this.#connection === connection) this.close();
        reject(error);
      };
      connection.on("error", broke);
      connection.on("close", () => broke(new Error("the connection was closed")));
      connection.on("timeout", () => broke(new Error("no answer in time")));
    });
    this.#broken.catch(() => {}); // no call may be waiting
    if (process.env.SORAKA_TOKEN) {
      try {
        await this.#answer(this.#client.authenticate(process.env.SORAKA_TOKEN));
      } catch (error) {
        this.close(); // else the next call would go without it
        throw error;
      }
    }
  }

  #answer(call) {
    return Promise.race([call, this.#broken]);
  }
}

async function main([host, port, topic, url]) {
  const soraka = new Connection(host, Number(port));
  const run = `nodejs-${process.pid}-${Date.now()}`;
  try {
    await tour(soraka, topic, url, run);
    let number = 0;
    for await (const line of readline.createInterface({ input: process.stdin })) {
      const message = submission(topic, url, `${run}-${number++}`, 0, line);
      console.log(await soraka.call((client) => client.submit(message)));
    }
  } catch (error) {
    console.error(isFinal(error) ? described(error) : error);
    process.exitCode = 1;
  } finally {
    soraka.close();
  }
}

/** Each call and each error. */
async function tour(soraka, topic, url, run) {
  const one = submission(topic, url, `${run}-one`);
  const id = await soraka.call((client) => client.submit(one));
  console.log(`submitted ${id}`);
  if ((await soraka.call((client) => client.submit(one))) === id) {
    console.log("sent again, the same");
  }

  const wrong = submission(topic, url, `${run}-four`, -1);
  const batch = ["two", "three"].map((name) => submission(topic, url, `${run}-${name}`));
  const results = await soraka.call((client) => client.submitBatch([...batch, wrong]));
  console.log(`batch ${results.map((result) => result.ec).join(" ")}`);

  console.log(`is ${nameOf((await found(soraka, id)).state)}`);
  await soraka.call((client) => client.addTime(topic, id, MINUTE, `later-${id}`));
  console.log("later by a minute");
  await soraka.call((client) => client.cancel(topic, id, `cancel-${id}`));
  console.log(`is ${nameOf((await found(soraka, id)).state)}`);

  await refused(soraka, (client) => client.addTime(topic, id, MINUTE, `again-${id}`));
  await refused(soraka, (client) => client.submit(submission(topic, url, `${run}-one`, 1)));
  await refused(soraka, (client) => client.submit(wrong));
  await refused(soraka, (client) => client.get(UNKNOWN));
  await refused(soraka, (client) => client.cancel(`${topic}.none`, UNKNOWN, "none"));
  console.log("ready");
}

function submission(topic, url, key, delay = HOUR, params = "{}") {
  return new types.Submission({
    topic_name: topic,
    delay_time: delay,
    callback: new types.Callback({ request_type: types.RequestType.POST, url, params }),
    idempotency_key: key,
  });
}

/** Just submitted, it may not be in the store yet. */
async function found(soraka, id) {
  for (const deadline = Date.now() + PATIENCE_MS; ; await sleep(100)) {
    try {
      return await soraka.call((client) => client.get(id));
    } catch (error) {
      if (!(error instanceof types.MessageNotFound) || Date.now() > deadline) throw error;
    }
  }
}

async function refused(soraka, ask) {
  try {
    await soraka.call(ask);
    console.log("accepted");
  } catch (error) {
    if (!isFinal(error)) throw error;
    console.log(described(error));
  }
}

function isFinal(error) {
  return FINAL.some((kind) => error instanceof kind);
}

/** The name of the error and its text; for a wrong request that begins with the field. */
function described(error) {
  return `${error.name}: ${error.em}`;
}

function nameOf(state) {
  return Object.keys(types.MessageState).find((name) => types.MessageState[name] === state);
}

main(process.argv.slice(2));
