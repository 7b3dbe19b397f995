// Calls of the official JavaScript client; what they gave is printed as one JSON object.
// Usage: node calls.cjs middleware|proxy|official-proxy, with EMULATOR_URL, PROXY_URL and FAL_KEY in the environment.

const { createServer } = require("node:http");
const { createFalClient } = require("@fal-ai/client");
const { handleRequest } = require("@fal-ai/server-proxy");

const { EMULATOR_URL, PROXY_URL, FAL_KEY } = process.env;

function rebased(url) {
  return url
    .replace(/^https?:\/\/queue\.fal\.run/, `${EMULATOR_URL}/queue`)
    .replace(/^https?:\/\/fal\.run/, `${EMULATOR_URL}/run`);
}

// The proxy package as an application would serve it; only the platform's address is changed.
async function officialProxy() {
  const realFetch = globalThis.fetch;
  globalThis.fetch = (url, options) => realFetch(rebased(String(url)), options);
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    await handleRequest({
      id: "test",
      method: request.method,
      getHeaders: () => request.headers,
      getHeader: (name) => request.headers[name],
      sendHeader: (name, value) => response.setHeader(name, value),
      getRequestBody: async () => Buffer.concat(chunks).toString(),
      respondWith: (status, body) => response.writeHead(status).end(JSON.stringify(body)),
      sendResponse: async (reply) => {
        response.writeHead(reply.status);
        for await (const chunk of reply.body ?? []) response.write(chunk);
        response.end();
      },
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

async function configured(way) {
  if (way === "middleware") {
    const requestMiddleware = async (request) => ({ ...request, url: rebased(request.url) });
    return [{ credentials: FAL_KEY, requestMiddleware }, () => {}];
  }
  if (way === "proxy") {
    return [{ proxyUrl: { url: PROXY_URL, when: "always" } }, () => {}];
  }
  const server = await officialProxy();
  const url = `http://127.0.0.1:${server.address().port}/api/fal/proxy`;
  return [{ proxyUrl: { url, when: "always" } }, () => server.close()];
}

async function failure(call) {
  try {
    return await call();
  } catch (error) {
    const { name, status, body, requestId, fieldErrors } = error;
    return { name, status, body, hasRequestId: Boolean(requestId), fieldErrors };
  }
}

async function main(way) {
  const [options, done] = await configured(way);
  const fal = createFalClient(options);
  const input = { text: "hello" };
  const seen = { run: await fal.run("acme/upper", { input }) };
  seen.runId = Boolean(seen.run.requestId);
  seen.run = seen.run.data;

  const submitted = await fal.queue.submit("acme/upper", { input, priority: "low", hint: "lora" });
  const requestId = submitted.request_id;
  await fal.queue.subscribeToStatus("acme/upper", { requestId, pollInterval: 10 });
  seen.status = await fal.queue.status("acme/upper", { requestId, logs: true });
  seen.status = { status: seen.status.status, logs: seen.status.logs.map((line) => line.message) };
  const result = await fal.queue.result("acme/upper", { requestId });
  seen.result = result.data;
  seen.sameId = result.requestId === requestId;

  for (const mode of ["polling", "streaming"]) {
    const logs = [];
    const states = [];
    const onQueueUpdate = (update) => {
      states.push(update.status);
      logs.splice(0, logs.length, ...(update.logs ?? []).map((line) => line.message));
    };
    const options = { input, mode, logs: true, pollInterval: 10, onQueueUpdate };
    const { data } = await fal.subscribe("acme/upper", options);
    seen[mode] = { data, logs, last: states.at(-1) };
  }

  const stream = await fal.stream("acme/count", { input: { steps: 3 } });
  seen.events = [];
  for await (const event of stream) seen.events.push(event);
  seen.last = await stream.done();

  const slow = await fal.queue.submit("acme/slow", { input: {} });
  await fal.queue.cancel("acme/slow", { requestId: slow.request_id });
  await fal.queue.subscribeToStatus("acme/slow", { requestId: slow.request_id, pollInterval: 10 });
  const late = { requestId: slow.request_id };
  seen.cancelled = await failure(() => fal.queue.result("acme/slow", late));
  seen.tooLate = await failure(() => fal.queue.cancel("acme/slow", late));
  seen.invalid = await failure(() => fal.run("acme/upper", { input: { text: 5 } }));
  seen.unknown = await failure(() => fal.run("acme/nothing", { input: {} }));
  seen.workflow = (await fal.subscribe("workflows/acme/flow", { input: { a: 1 } })).data;
  console.log(JSON.stringify(seen));
  done();
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
