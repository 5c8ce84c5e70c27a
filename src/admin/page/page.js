// The page at `/`: a node at work. It asks for the figures once a second, publishes samples, and is a subscriber itself.
//
// Whatever came in an event (topics, names, ids, data) goes into text nodes only: there is no innerHTML in this file.

const POLL_MS = 1000;
const ANSWER_MS = 4000;
/** A chart begins with the last minute and widens to five. */
const CHART_LEAST_SECONDS = 60;
const CHART_MOST_SECONDS = 300;
const TAIL_ROWS = 40;
const SLOW_ROWS = 10;
/** Topics of one slow client; the others are in the title. */
const SLOW_TOPICS = 3;
/** Up to this many new rows a second are marked; more would only flicker. */
const FRESH_ROWS = 5;
const RECEIVED_ROWS = 100;
const TRIPS = 500;
/** What was published and did not come back within this time was not for this page. */
const FORGET_MS = 30000;

// ---- Small things ----

const byId = (id) => document.getElementById(id);

/** An element with a class and children; strings become text nodes. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Text as it can be shown: what would hide or reorder other text is written out. */
function visible(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const num = (value) => (typeof value === 'number' && Number.isFinite(value) ? value : 0);
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });

const count = (value) => (value >= 1e7 ? short.format(value) : whole.format(value));

/** A rate: a decimal where there is little of it, so that one event in ten seconds is not nothing. */
const rate = (value) => (value >= 1e6 ? short.format(value) : value < 10 ? tenth.format(value) : whole.format(value));

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit && value < 100 ? tenth.format(value) : whole.format(value)} ${units[unit]}`;
}

/** Three digits of a number of milliseconds. */
const digits = (value) => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);

function millis(value) {
  return value >= 1000 ? `${(value / 1000).toFixed(value >= 10000 ? 0 : 1)} s` : `${digits(value)} ms`;
}

function duration(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function clock(value, withMillis) {
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) return '';
  const two = (n) => String(n).padStart(2, '0');
  const base = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return withMillis ? `${base}.${String(time.getMilliseconds()).padStart(3, '0')}` : base;
}

const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

// ---- Asking the node ----

/** Relative, so that the page also works under a prefix of a proxy. */
const address = (path) => new URL(path, document.baseURI);

let token = '';
try { token = sessionStorage.getItem('fanwire-token') ?? ''; } catch { /* storage is switched off: ask again each time */ }

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(address(path), {
    ...options, headers, cache: 'no-store', credentials: 'same-origin', signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (response.status === 401) askForToken();
  return response;
}

function askForToken() {
  const form = byId('token-form');
  setText(byId('token-hint'), token ? 'The node did not take that one.' : 'Kept in this tab until it is closed.');
  if (!form.hidden) return;
  form.hidden = false;
  byId('token').focus();
}

byId('token-form').addEventListener('submit', (submit) => {
  submit.preventDefault();
  token = byId('token').value.trim();
  try { sessionStorage.setItem('fanwire-token', token); } catch { /* as above */ }
  byId('token').value = '';
  byId('token-form').hidden = true;
  writeSnippets();
  poll();
});

/** What went wrong, in the node's own words where it has some. */
async function complaint(response) {
  const text = await response.text().catch(() => '');
  let said;
  try { said = JSON.parse(text); } catch { /* not JSON: shown as it is */ }
  const reasons = [];
  if (Array.isArray(said?.errors)) {
    for (const error of said.errors.slice(0, 5)) {
      const where = said.errors.length > 1 || num(error.index) > 0 ? `event ${num(error.index) + 1}: ` : '';
      const code = error.code === undefined ? '' : ` (error ${error.code})`;
      reasons.push(`${where}${error.message ?? 'refused'}${code}`);
    }
    if (said.errors.length > 5) reasons.push(`and ${said.errors.length - 5} more`);
  } else {
    reasons.push(said?.error ?? said?.message ?? (text.slice(0, 300) || 'no reason given'));
  }
  return `${response.status}: ${visible(reasons.join('\n')).replaceAll('\\u000a', '\n')}`;
}

// ---- Charts: SVG, one line over the last minutes ----

const SVG = 'http://www.w3.org/2000/svg';

function chart(id, format) {
  const place = byId(id);
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 300 100');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const [area, line, cursor] = ['path', 'path', 'line'].map((tag) => document.createElementNS(SVG, tag));
  area.setAttribute('class', 'area');
  line.setAttribute('class', 'line');
  cursor.setAttribute('class', 'cursor');
  svg.append(area, line, cursor);
  const left = make('span');
  const right = make('span');
  place.append(make('p', '', left, right), svg);

  /** `{ at: ms, value }`; a value of null is a break in the line. */
  let points = [];
  let pointed = null;

  function draw() {
    const now = points.at(-1)?.at ?? 0;
    const width = Math.min(CHART_MOST_SECONDS, Math.max(CHART_LEAST_SECONDS, (now - (points[0]?.at ?? now)) / 1000));
    const most = Math.max(...points.map((point) => point.value ?? 0), 0);
    const top = most || 1;
    const x = (point) => 300 * (1 - (now - point.at) / 1000 / width);
    const y = (point) => 96 - (point.value / top) * 86;
    let outline = '';
    let shape = '';
    let start = null;
    let last = null;
    const finish = () => { if (start) shape += `L${x(last).toFixed(1)} 100L${x(start).toFixed(1)} 100Z`; start = null; };
    for (const point of points) {
      if (point.value === null) { finish(); continue; }
      const step = `${start ? 'L' : 'M'}${x(point).toFixed(1)} ${y(point).toFixed(1)}`;
      start ??= point;
      last = point;
      outline += step;
      shape += step;
    }
    finish();
    line.setAttribute('d', outline);
    area.setAttribute('d', shape);

    const near = pointed === null ? null : points.filter((point) => point.value !== null)
      .reduce((best, point) => (!best || Math.abs(x(point) - pointed) < Math.abs(x(best) - pointed) ? point : best), null);
    cursor.setAttribute('visibility', near ? 'visible' : 'hidden');
    if (near) {
      for (const [name, value] of [['x1', x(near)], ['x2', x(near)], ['y1', 0], ['y2', 100]]) cursor.setAttribute(name, value);
      setText(left, clock(near.at));
      setText(right, format(near.value));
    } else {
      setText(left, points.length > 1 ? `last ${width < 90 ? `${Math.round(width)} s` : `${Math.round(width / 60)} min`}` : '');
      setText(right, points.length > 1 && most > 0 ? `peak ${format(most)}` : '');
    }
  }

  place.addEventListener('pointermove', (event) => {
    const box = place.getBoundingClientRect();
    pointed = ((event.clientX - box.left) / box.width) * 300;
    draw();
  });
  place.addEventListener('pointerleave', () => { pointed = null; draw(); });

  return (at, value) => {
    points.push({ at, value });
    points = points.filter((point) => at - point.at <= CHART_MOST_SECONDS * 1000);
    draw();
  };
}

const chartConnections = chart('chart-connections', count);
const chartEvents = chart('chart-events', (value) => `${rate(value)}/s`);
const chartDeliveries = chart('chart-deliveries', (value) => `${rate(value)}/s`);
const chartLatency = chart('chart-latency', millis);

function breakCharts() {
  for (const add of [chartConnections, chartEvents, chartDeliveries, chartLatency]) add(Date.now(), null);
}

// ---- Figures ----

/** What the reasons of the node mean. One that is not here is shown under its own name. */
const MEANING = {
  drop_oldest: 'The oldest was left out, as the subscription asked',
  drop_newest: 'The newest was left out, as the subscription asked',
  slow_consumer: "The client's queue was full",
  outbox_memory: 'All queues together were full, and this client was furthest behind',
  client_closed: 'The client said goodbye',
  connection_lost: 'The socket ended or broke without a goodbye',
  protocol_error: 'The client broke the WebSocket protocol',
  binary_frame: 'The client sent binary data',
  message_too_big: 'The client sent a message above the limit',
  message_timeout: 'The client began a message and did not finish it',
  message_rate: 'The client sent more messages than it may',
  at_capacity: 'The node was full',
  heartbeat_timeout: 'Nothing was heard from the client for too long',
  shutting_down: 'The node shut down',
};

/** Rows of name and count: what is above nothing first. `loud`: a count above nothing is bad news. */
function listCounts(id, counts, { empty, loud }) {
  const entries = Object.entries(counts ?? {}).map(([name, value]) => [name, num(value)]);
  entries.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const above = entries.filter(([, value]) => value > 0);
  // What is zero is worth a line only while there are few of them.
  const shown = above.length || entries.length > 6 ? above : entries;
  const list = byId(id);
  const key = JSON.stringify(shown);
  if (list.dataset.key === key && list.hasChildNodes()) return;
  list.dataset.key = key;
  if (!shown.length) {
    list.replaceChildren(make('div', 'zero', make('dt', '', empty), make('dd', '', '0')));
    return;
  }
  list.replaceChildren(...shown.map(([name, value]) => {
    const term = make('dt', '', visible(name).replaceAll('_', ' '));
    if (Object.hasOwn(MEANING, name)) term.title = MEANING[name];
    return make('div', value === 0 ? 'zero' : loud ? 'loud' : '', term, make('dd', '', count(value)));
  }));
}

function listPairs(id, pairs) {
  byId(id).replaceChildren(...pairs.map(([name, value, title]) => {
    const row = make('div', '', make('dt', '', name), make('dd', '', value));
    if (title) row.title = title;
    return row;
  }));
}

function fillTable(id, rows) {
  byId(id).tBodies[0].replaceChildren(...rows.map(([first, ...cells]) => {
    const head = make('th', '', first);
    head.scope = 'row';
    return make('tr', '', head, ...cells.map((cell) => make('td', '', cell)));
  }));
}

/** Seconds between two answers, by the node's own clocks. */
function secondsBetween(before, after) {
  const wall = (Date.parse(after.timestamp) - Date.parse(before.timestamp)) / 1000;
  const up = num(after.uptimeSeconds) - num(before.uptimeSeconds);
  // The uptime may be rounded to tenths; the wall clock may be set. The wall clock counts while they agree.
  return Math.abs(wall - up) < 0.5 && wall > 0 ? wall : up;
}

let previous = null;

function show(stats) {
  const restarted = previous && num(stats.uptimeSeconds) < num(previous.uptimeSeconds);
  if (restarted) { previous = null; breakCharts(); }
  const seconds = previous ? secondsBetween(previous, stats) : 0;
  const before = previous;
  if (before && seconds < 0.05) return; // the same moment twice
  const perSecond = (name) => (before ? Math.max(0, num(stats[name]) - num(before[name])) / seconds : null);
  const shownRate = (value) => (value === null ? '–' : rate(value));
  previous = stats;
  const now = Date.now();

  const state = typeof stats.state === 'string' ? stats.state : 'ready';
  byId('state').dataset.state = state;
  setText(byId('state'), visible(state));
  setText(byId('about'), `${location.host} · version ${visible(stats.version ?? '?')} · up ${duration(num(stats.uptimeSeconds))}`);
  setText(byId('updated'), `Updated ${clock(stats.timestamp)}`);
  byId('trouble').hidden = true;

  // The four figures with their charts.
  const connections = num(stats.connections);
  setText(byId('connections'), count(connections));
  setText(byId('connections-detail'), `of ${count(num(stats.maxClients))} · ${plural(num(stats.publishers), 'publisher')} · ${plural(num(stats.rooms), 'topic')}`);
  chartConnections(now, connections);

  const eventsIn = perSecond('eventsIn');
  setText(byId('events-in'), shownRate(eventsIn));
  byId('events-in').dataset.total = num(stats.eventsIn);
  setText(byId('events-in-detail'), `${count(num(stats.eventsIn))} in all · ${bytes(perSecond('eventBytesIn') ?? 0)}/s`);
  chartEvents(now, eventsIn);

  const deliveries = perSecond('deliveries');
  setText(byId('deliveries'), shownRate(deliveries));
  byId('deliveries').dataset.total = num(stats.deliveries);
  setText(byId('deliveries-detail'), `${count(num(stats.deliveries))} in all · ${bytes(perSecond('deliveredBytes') ?? 0)}/s`);
  chartDeliveries(now, deliveries);

  const recent = stats.latencyRecentMs ?? {};
  const total = stats.latencyMs ?? {};
  const some = num(recent.count) > 0;
  setText(byId('latency-window'), `${num(recent.seconds) || 10} s`);
  setText(byId('latency-p99'), some ? millis(num(recent.p99)) : '–');
  setText(byId('latency-detail'), some
    ? `p50 ${digits(num(recent.p50))} · p90 ${digits(num(recent.p90))} · p999 ${millis(num(recent.p999))}`
    : 'nothing was delivered');
  chartLatency(now, some ? num(recent.p99) : null);

  // Loss, queues, latency, shards.
  listCounts('drops', stats.dropped, { empty: 'none', loud: true });
  listCounts('closes', stats.closed, { empty: 'none', loud: false });
  listCounts('refusals', stats.refused, { empty: 'none', loud: true });

  const outbox = stats.outbox ?? {};
  const flushes = before ? num(stats.flushes) - num(before.flushes) : 0;
  listPairs('queues', [
    ['Subscriptions', count(num(stats.subscriptions))],
    ['Events without subscriber', count(num(stats.eventsUnsubscribed))],
    ['Events in client queues', count(num(outbox.events))],
    ['Oldest of them', num(outbox.events) ? millis(num(outbox.oldestMs)) : '–'],
    ['Clients that do not read', count(num(outbox.blockedClients)), 'Their last write was refused by the kernel'],
    ['Deliveries pending', count(num(stats.pending))],
    ['Deliveries per write', flushes > 0 ? tenth.format((num(stats.deliveries) - num(before.deliveries)) / flushes) : '–'],
    ['Clients by dialect', Object.entries(stats.dialects ?? {}).map(([name, n]) => `${name} ${count(num(n))}`).join(', ') || 'none'],
    ['HTTP connections', count(num(stats.httpConnections))],
  ]);
  const share = num(outbox.maxBytes) ? num(outbox.heldBytes) / num(outbox.maxBytes) : 0;
  byId('outbox-meter').value = Math.min(1, share);
  setText(byId('outbox-note'), `${bytes(num(outbox.heldBytes))} of at most ${bytes(num(outbox.maxBytes))}`);

  setText(byId('latency-recent-head'), `last ${num(recent.seconds) || 10} s`);
  const cell = (from, name) => (num(from.count) ? millis(num(from[name])) : '–');
  fillTable('latency', [
    ...['p50', 'p90', 'p99', 'p999', 'max'].map((name) => [name, cell(recent, name), cell(total, name)]),
    ['deliveries', count(num(recent.count)), count(num(total.count))],
  ]);

  const shards = Array.isArray(stats.perShard) ? stats.perShard : [];
  const shardBefore = new Map((before?.perShard ?? []).map((row) => [row.shard, row]));
  fillTable('shards', shards.map((row) => {
    const old = shardBefore.get(row.shard);
    const each = (name) => (old ? rate(Math.max(0, num(row[name]) - num(old[name])) / seconds) : '–');
    return [visible(row.shard), count(num(row.connections)), each('eventsIn'), each('deliveries'),
      millis(num(row.turnP99Ms)), bytes(num(row.linkBytes)), count(num(row.sweep))];
  }));

  showTail(stats.tail, before?.tail, seconds);
}

// ---- Slow clients ----

function showSlow(answer) {
  const clients = Array.isArray(answer?.clients) ? answer.clients : [];
  byId('slow-card').hidden = clients.length === 0;
  setText(byId('slow-note'), answer?.clientsTruncated ? `the ${count(clients.length)} furthest behind` : 'furthest behind first');
  // What the kernel does not tell is null.
  const known = (value, format) => (typeof value === 'number' ? format(value) : '–');
  fillTable('slow', clients.map((client) => {
    const topics = (Array.isArray(client.topics) ? client.topics : []).map(visible);
    const more = topics.length - SLOW_TOPICS;
    const shown = make('span', '', topics.slice(0, SLOW_TOPICS).join(', ') + (more > 0 ? ` +${more}${client.topicsTruncated ? ' or more' : ''}` : ''));
    shown.title = topics.join('\n') + (client.topicsTruncated ? '\n…' : '');
    const dropped = Object.entries(client.dropped ?? {}).map(([reason, n]) => `${count(num(n))} ${visible(reason).replaceAll('_', ' ')}`);
    return [visible(client.clientId), visible(client.address), visible(client.dialect), count(num(client.queuedEvents)),
      bytes(num(client.queuedBytes)), millis(num(client.oldestMs)), known(client.kernelUnsentBytes, bytes),
      known(client.rttMs, millis), known(client.retransmits, count), dropped.join(', ') || '–', shown];
  }));
}

// ---- The tail ----

let tailPaused = false;

function eventRow({ timestamp, topics, event, data, truncated, trip, fresh }) {
  const [first, ...others] = Array.isArray(topics) ? topics : [];
  const names = make('span', 'topics', visible(first ?? ''));
  if (others.length) names.append(make('span', 'more', ` +${others.length}`));
  names.title = [first, ...others].map(visible).join('\n');
  const text = visible(data) + (truncated ? '…' : '');
  const cells = [make('span', 'time', clock(timestamp, true)), names, make('span', 'event', visible(event)), make('span', 'data', text)];
  cells[2].title = visible(event);
  cells[3].title = text;
  if (trip !== undefined) cells.push(make('span', 'trip', trip === null ? '' : millis(trip)));
  return make('li', fresh ? 'fresh' : '', ...cells);
}

function showTail(tail, before, seconds) {
  const events = Array.isArray(tail?.events) ? [...tail.events] : [];
  const arrived = before ? Math.max(0, num(tail?.seen) - num(before.seen)) : 0;
  const note = byId('tail-note');
  if (tailPaused) {
    setText(note, 'paused');
    return;
  }
  // Newest first, whichever way the node lists them.
  if (events.length > 1 && String(events[0].timestamp) <= String(events.at(-1).timestamp)) events.reverse();
  if (!events.length) {
    byId('tail').replaceChildren(make('li', 'empty', 'No event has come in yet. Publish a sample, or send one from code.'));
    setText(note, 'waiting for the first event');
    return;
  }
  if (arrived > events.length) setText(note, `a sample: showing ${count(events.length)} of ${rate(arrived / seconds)}/s`);
  else if (arrived > 0) setText(note, `every event, ${rate(arrived / seconds)}/s`);
  else setText(note, `the latest ${count(events.length)}, nothing new`);
  if (before && arrived === 0 && byId('tail').querySelector('.event')) return;
  byId('tail').replaceChildren(...events.map((event, index) => eventRow({ ...event, fresh: index < arrived && arrived <= FRESH_ROWS })));
}

byId('tail-pause').addEventListener('click', () => {
  tailPaused = !tailPaused;
  byId('tail-pause').setAttribute('aria-pressed', String(tailPaused));
  setText(byId('tail-pause'), tailPaused ? 'Go on' : 'Pause');
  setText(byId('tail-note'), tailPaused ? 'paused' : '');
  // After a pause the next answer is drawn whole, new or not.
  if (!tailPaused) byId('tail').replaceChildren();
});

// ---- Polling ----

let timer = 0;
let asking = false;
let lastAnswer = 0;

async function poll() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const started = performance.now();
  try {
    const response = await ask(`api/v1/websocket/stats?tail=${TAIL_ROWS}`);
    if (response.ok) {
      const stats = await response.json();
      lastAnswer = Date.now();
      show(stats);
      const slow = await ask(`api/slow?limit=${SLOW_ROWS}`);
      // Without that list the page shows the rest.
      showSlow(slow.ok ? await slow.json() : null);
    } else if (response.status === 401) {
      // The token form asks again.
      lost('locked', null);
      asking = false;
      return;
    } else {
      lost('no figures', `The node refuses its figures. ${await complaint(response)}`);
    }
  } catch {
    const since = lastAnswer ? ` since ${clock(lastAnswer)}` : '';
    lost('no answer', `The node does not answer${since}. Asking again every second.`);
  }
  asking = false;
  timer = setTimeout(poll, Math.max(100, POLL_MS - (performance.now() - started)));
}

function lost(word, text) {
  byId('state').dataset.state = 'lost';
  setText(byId('state'), word);
  const trouble = byId('trouble');
  trouble.hidden = text === null;
  if (text !== null) setText(trouble, text);
  if (previous) { breakCharts(); previous = null; }
}

// ---- Publishing ----

/** Part of every id that this page makes up, so that two open pages do not take each other's events for their own. */
const pageName = Math.random().toString(36).slice(2, 8);
let made = 0;

const SAMPLES = [
  ['publish-conductor', (n) => ({
    topics: ['error-recovery'], event: 'retry-started',
    data: { retryId: `retry-${pageName}-${n}`, attemptNumber: 1 + (n % 3), errorMessage: 'Connection timeout', nextRetryAt: new Date(Date.now() + 30000).toISOString() },
  })],
  ['publish-runs', (n) => ({
    topics: ['run:demo-run', 'project:demo', 'global'], event: 'stage-progress',
    data: { runId: 'demo-run', stageId: `stage-${pageName}-${n}`, stageName: 'Analysis', progress: (n * 7) % 101 },
  })],
  ['publish-projects', (n) => ({
    topics: ['project:demo'], event: 'workflow.progress',
    data: { project_id: 'demo', workflow_id: `workflow-${pageName}-${n}`, progress: (n * 5) % 101, current_step: 'build' },
  })],
  ['publish-workflow', (n) => ({
    topics: ['run:550e8400-e29b-41d4-a716-446655440000'], event: 'step_log',
    data: { stepId: `step-${pageName}-${n}`, level: 'info', message: 'Starting step: Validate Input', timestamp: new Date().toISOString() },
  })],
];

const nextSample = (which) => { made += 1; return SAMPLES[which % SAMPLES.length][1](made); };

function result(kind, text) {
  const place = byId('publish-result');
  place.dataset.kind = kind;
  setText(place, text);
}

/** When what was sent is still under way: event name and data → the times it was sent, first one first. */
const underWay = new Map();
const signature = (event, data) => `${event}\n${JSON.stringify(data)}`;

function remember(event, data, at) {
  const key = signature(event, data);
  const times = underWay.get(key);
  if (times) times.push(at);
  else underWay.set(key, [at]);
  // What never comes (no subscription, a filter) must not pile up.
  if (underWay.size > 5000) underWay.delete(underWay.keys().next().value);
}

function tripOf(event, data) {
  const key = signature(event, data);
  const now = performance.now();
  const times = (underWay.get(key) ?? []).filter((sent) => now - sent < FORGET_MS);
  const sent = times.shift();
  if (times.length) underWay.set(key, times);
  else underWay.delete(key);
  return sent === undefined ? null : now - sent;
}

/** Sends a body and says what became of it (a success only under a name). Whether it was accepted is the answer. */
async function publish(body, what) {
  const started = performance.now();
  try {
    const response = await ask('api/publish', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
    if (!response.ok) {
      result('bad', `Not published. ${await complaint(response)}`);
      return false;
    }
    const answer = await response.json();
    if (what !== null) result('good', `${what}: ${plural(num(answer.accepted), 'event')} accepted in ${millis(performance.now() - started)}.`);
    return true;
  } catch {
    result('bad', 'Not known to be published: the node did not answer.');
    return false;
  }
}

function publishSamples(samples, what) {
  const now = performance.now();
  for (const sample of samples) remember(sample.event, sample.data, now);
  return publish(JSON.stringify(samples.length === 1 ? samples[0] : samples), what);
}

SAMPLES.forEach(([id], index) => byId(id).addEventListener('click', () => {
  const sample = nextSample(index);
  publishSamples([sample], sample.event);
}));

byId('publish-many').addEventListener('click', async () => {
  byId('publish-many').disabled = true;
  await publishSamples(Array.from({ length: 1000 }, (_, index) => nextSample(index)), 'One request');
  byId('publish-many').disabled = false;
});

let steady = 0;
let steadyWaits = 0;
let steadyFailures = 0;

function setSteady(on) {
  clearInterval(steady);
  steady = 0;
  steadyFailures = 0;
  byId('publish-steady').setAttribute('aria-pressed', String(on));
  setText(byId('publish-steady'), on ? 'Stop the stream' : 'Steady stream, 10/s');
  if (on) {
    steady = setInterval(async () => {
      if (steadyWaits >= 5) return; // the node is slow: do not pile up on it
      steadyWaits += 1;
      // Said once a second: the line is read out to those who listen to the page.
      const good = await publishSamples([nextSample(made)], made % 10 === 0 ? 'Steady stream' : null);
      steadyWaits -= 1;
      steadyFailures = good ? 0 : steadyFailures + 1;
      if (steady && steadyFailures >= 3) setSteady(false);
    }, 100);
  }
}
byId('publish-steady').addEventListener('click', () => setSteady(!steady));

const names = (text) => text.split(',').map((name) => name.trim()).filter(Boolean);

byId('own-form').addEventListener('submit', async (submit) => {
  submit.preventDefault();
  const topics = names(byId('own-topics').value);
  const event = byId('own-event').value;
  const text = byId('own-data').value.trim() || 'null';
  // As written, not parsed and written again: the node passes data on byte for byte, and it is for the node to refuse it.
  const body = `{"topics":${JSON.stringify(topics)},"event":${JSON.stringify(event)},"data":${text}}`;
  const comesBack = topics.some((topic) => subscribed.includes(topic));
  try { if (comesBack) remember(event, JSON.parse(text), performance.now()); } catch { /* the node will say so */ }
  const accepted = await publish(body, event);
  if (accepted && !comesBack) {
    const place = byId('publish-result');
    const button = make('button', 'small', `Subscribe this page to ${visible(topics[0])}`);
    button.type = 'button';
    button.addEventListener('click', () => { subscribe([topics[0]]); button.remove(); });
    place.append(' ', button);
  }
});

// ---- This page as a subscriber ----

const CLOSED = {
  1000: 'closed', 1001: 'the node shuts down', 1003: 'binary data', 1006: 'the connection broke', 1007: 'bad UTF-8', 1008: 'not allowed',
  1009: 'message too big', 1012: 'the node restarts', 1013: 'the node is full', 4000: 'heartbeat timeout', 4001: 'token expired',
  4008: 'slow consumer: the queue of this page was full',
};

/** What the page wants, kept over a reconnect; and what the node said that it has. */
let wanted = ['error-recovery', 'run:demo-run', 'project:demo', 'run:550e8400-e29b-41d4-a716-446655440000'];
let subscribed = [];
let socket = null;
let attempt = 0;
let reconnect = 0;

let received = 0;
let gaps = 0;
let trips = [];
let rows = [];
let drawing = false;

function socketState(state, text) {
  byId('socket-dot').dataset.state = state;
  setText(byId('socket-state'), text);
}

function connect() {
  clearTimeout(reconnect);
  byId('socket-now').hidden = true;
  const url = address('ws');
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  socketState('waiting', 'connecting');
  socket = new WebSocket(url);
  socket.addEventListener('open', () => {
    socketState('open', 'connected');
    if (wanted.length) send({ type: 'subscribe', topics: wanted, clientId: `page-${pageName}` });
  });
  socket.addEventListener('message', (message) => take(message.data));
  socket.addEventListener('close', closed);
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function take(text) {
  let message;
  try { message = JSON.parse(text); } catch { tell(`Something that is not JSON: ${visible(text).slice(0, 200)}`); return; }
  switch (message.type) {
    case 'event': {
      const trip = tripOf(message.event, message.data);
      received += 1;
      if (trip !== null) {
        trips.push(trip);
        if (trips.length > TRIPS) trips = trips.slice(-TRIPS);
      }
      addRow({ timestamp: message.timestamp, topics: [message.category], event: message.event, data: JSON.stringify(message.data), trip });
      break;
    }
    case 'subscription-ack':
    case 'unsubscription-ack':
      attempt = 0;
      subscribed = Array.isArray(message.data?.categories) ? message.data.categories.map(String) : [];
      showTopics();
      break;
    case 'gap':
      gaps += num(message.data?.dropped);
      tell(`Gap: ${plural(num(message.data?.dropped), 'event')} of ${visible(message.data?.topic)} left out here.`);
      break;
    case 'error':
      tell(`The node says: ${visible(message.data?.error ?? text)}`);
      break;
    case 'ping':
      send({ type: 'pong' });
      break;
    default:
  }
}

function closed(close) {
  let said = null;
  try { said = JSON.parse(close.reason); } catch { /* the reason may be plain text, or nothing */ }
  const why = CLOSED[close.code] ?? (said ? '' : visible(close.reason));
  subscribed = [];
  showTopics();
  byId('socket-now').hidden = false;
  const forGood = close.code === 1008 || close.code >= 4500;
  if (forGood) {
    socketState('closed', `closed with ${close.code}: ${why}`);
    return;
  }
  attempt += 1;
  const wait = Math.min(num(said?.retryAfterMs) || 500 * 2 ** Math.min(attempt, 5) * (0.5 + Math.random() / 2), 60000);
  socketState('closed', `closed with ${close.code}${why && `: ${why}`}. Again in ${millis(wait)}.`);
  if (close.code !== 1006) tell(`Closed with ${close.code}${why && `: ${why}`}.`);
  reconnect = setTimeout(connect, wait);
}

byId('socket-now').addEventListener('click', connect);

function subscribe(topics) {
  wanted = [...new Set([...wanted, ...topics])];
  send({ type: 'subscribe', topics, clientId: `page-${pageName}` });
  showTopics();
}

function unsubscribe(topic) {
  wanted = wanted.filter((name) => name !== topic);
  send({ type: 'unsubscribe', topics: [topic] });
  showTopics();
}

function showTopics() {
  byId('topics').replaceChildren(...(subscribed.length ? subscribed : wanted).map((topic) => {
    const name = make('span', '', visible(topic));
    name.title = visible(topic);
    const button = make('button', '', '×');
    button.type = 'button';
    button.setAttribute('aria-label', `Unsubscribe from ${visible(topic)}`);
    button.addEventListener('click', () => unsubscribe(topic));
    return make('li', '', name, button);
  }));
}

byId('topic-form').addEventListener('submit', (submit) => {
  submit.preventDefault();
  const topics = names(byId('topic').value);
  if (topics.length) subscribe(topics);
  byId('topic').value = '';
});

byId('received-clear').addEventListener('click', () => {
  rows = [];
  received = 0;
  gaps = 0;
  trips = [];
  drawReceived();
});

function tell(text) {
  addRow({ told: text });
}

/** Rows are drawn once a frame however many came, and only those that have a place. */
function addRow(row) {
  rows.push(row);
  if (rows.length > 4 * RECEIVED_ROWS) rows = rows.slice(-RECEIVED_ROWS);
  if (drawing) return;
  drawing = true;
  // A page in the background gets no frames; the timer is for it.
  const draw = () => { if (drawing) { drawing = false; drawReceived(); } };
  requestAnimationFrame(draw);
  setTimeout(draw, 250);
}

function drawReceived() {
  const shown = rows.slice(-RECEIVED_ROWS).reverse();
  byId('received').dataset.count = received;
  byId('received').replaceChildren(...(shown.length
    ? shown.map((row) => (row.told ? make('li', 'told', row.told) : eventRow(row)))
    : [make('li', 'empty', 'Nothing yet. What is published to the topics on the left arrives here.')]));
  setText(byId('received-count'), count(received));
  setText(byId('received-note'), received > shown.length ? `the last ${count(shown.length)} of ${count(received)}` : 'over its own WebSocket, /ws');
  setText(byId('gaps'), count(gaps));
  byId('gaps').parentElement.className = gaps ? 'loud' : '';
  const sorted = [...trips].sort((a, b) => a - b);
  const quantile = (share) => (sorted.length ? millis(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]) : '–');
  setText(byId('trip-last'), trips.length ? millis(trips.at(-1)) : '–');
  setText(byId('trip-p50'), quantile(0.5));
  setText(byId('trip-p99'), quantile(0.99));
}

// ---- Connect from code ----

function writeSnippets() {
  const http = address('').href.replace(/\/$/, '');
  const ws = http.replace(/^http/, 'ws');
  setText(byId('code-browser'), [
    `const ws = new WebSocket('${ws}/ws');`,
    'ws.onopen = () => ws.send(JSON.stringify({',
    "  type: 'subscribe', clientId: 'my-client',",
    "  categories: ['error-recovery'] }));",
    'ws.onmessage = (message) => {',
    '  const m = JSON.parse(message.data);',
    "  if (m.type === 'ping') ws.send('{\"type\":\"pong\"}');",
    "  if (m.type === 'event') console.log(m.category, m.event, m.data);",
    '};',
  ].join('\n'));
  setText(byId('code-curl'), [
    `curl ${http}/api/publish \\`,
    ...(token ? ['  -H "Authorization: Bearer $TOKEN" \\'] : []),
    "  -H 'Content-Type: application/json' \\",
    `  -d '{"topics":["error-recovery"],"event":"retry-started","data":{}}'`,
  ].join('\n'));
  const to = location.host === '127.0.0.1:8080' ? '' : ` --to ${http}`;
  setText(byId('code-sub'), `fanwire sub error-recovery run:demo-run${to}`);
}

for (const button of document.querySelectorAll('[data-copy]')) {
  button.addEventListener('click', async () => {
    const from = byId(button.dataset.copy);
    let done = true;
    try {
      await navigator.clipboard.writeText(from.textContent);
    } catch {
      // Browsers keep the clipboard from pages that came over plain HTTP from elsewhere: mark the text at least.
      getSelection().selectAllChildren(from);
      done = false;
    }
    setText(button, done ? 'Copied' : 'Marked');
    setTimeout(() => setText(button, 'Copy'), 1500);
  });
}

writeSnippets();
showTopics();
drawReceived();
connect();
poll();
