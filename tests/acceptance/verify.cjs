// Verifies callbacks with the official library, as a receiver in Node.js does: on standard input a
// JSON list of {secret, headers, body}; on standard output one of "ok" or the reason for each.
const { readFileSync } = require("node:fs");
const { Webhook } = require("standardwebhooks");

const verdicts = JSON.parse(readFileSync(0, "utf8")).map(({ secret, headers, body }) => {
  try {
    new Webhook(secret).verify(body, headers);
    return "ok";
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(verdicts));
