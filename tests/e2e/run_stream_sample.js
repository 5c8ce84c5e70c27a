const runId = "YOUR_RUN_ID";
const ws = new WebSocket(`ws://localhost:8080/api/v2/workflows/runs/${runId}/stream`);

ws.onmessage = (event) => {
  const msg = JSON.parse(event.data);
  console.log(`[${msg.type}]`, msg.payload);
};
