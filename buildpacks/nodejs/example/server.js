import express from "express";

const app = express();
app.get("/", (request, response) => {
  response.type("text").send(`Hello from paasd, release ${process.env.PAASD_RELEASE}\n`);
});

const server = app.listen(process.env.PORT ?? 3000, "0.0.0.0");
// Finish what was begun, then end: the next release is answering already.
process.on("SIGTERM", () => server.close());
