// Connect to WebSocket server
const ws = new WebSocket('ws://localhost:8080/ws');

ws.onopen = () => {
  // Subscribe to events
  ws.send(JSON.stringify({
    type: 'subscribe',
    categories: ['error-recovery', 'scheduler'],
    clientId: 'my-client',
  }));
};

ws.onmessage = (event) => {
  const message = JSON.parse(event.data);

  if (message.type === 'event') {
    console.log(`Event: ${message.event}`, message.data);
  } else if (message.type === 'subscription-ack') {
    console.log('Subscribed to:', message.data.categories);
  } else if (message.type === 'ping') {
    ws.send(JSON.stringify({ type: 'pong' }));
  }
};

ws.onclose = () => {
  console.log('Connection closed');
};
