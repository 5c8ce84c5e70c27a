export * from "./client.js";
export * from "./events.js";
export * from "./messages.js";
export * from "./publisher.js";
