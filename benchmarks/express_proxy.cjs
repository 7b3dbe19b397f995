// The official server proxy under Express, in front of the stub; only the platform's address is changed.

const express = require("express");
const { createHandler, route } = require("@fal-ai/server-proxy/express");

const realFetch = globalThis.fetch;
globalThis.fetch = (url, options) =>
  realFetch(String(url).replace(/^https:\/\/fal\.run/, `${process.env.STUB_URL}/run`), options);

const app = express();
app.use(express.json());
app.all(route, createHandler({ allowedEndpoints: ["bench/**"], allowUnauthorizedRequests: true }));
app.use(() => {}); // the handler calls next(), and without another one Express closes the connection
const server = app.listen(0, "127.0.0.1", () =>
  console.error(`running on http://127.0.0.1:${server.address().port}`),
);
