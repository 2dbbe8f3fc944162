const ROW_LIMIT = 200;
export const SHOWN_CHARACTERS = 4096;
const SHOWN_BYTES = 256;
const PENDING_LIMIT = 256;
const ANNOUNCED_ROWS = 20;

const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 30_000;
const STABLE_AFTER_MS = 5_000;
const DIAL_TIMEOUT_MS = 10_000;

const FINAL_CODES = [1000, 1008];
const CLOSE_MEANINGS = {
  1000: 'normal closure',
  1001: 'the server is going away',
  1002: 'protocol error',
  1003: 'this type of data is not accepted',
  1005: 'no code was sent',
  1006: 'the connection failed or was lost',
  1007: 'the data of a message did not match its type',
  1008: 'not allowed by the server’s policy',
  1009: 'a message was too big for the server',
  1011: 'the server had an internal error',
  1012: 'the server is restarting',
  1013: 'the server is busy',
  1014: 'a gateway received an invalid answer from the server',
};

const FAILURE_CAUSES = {
  403: `The server refuses pages of ${location.origin}. Start it with --origin ${location.origin}, or let the proxy keep the header Host (in nginx: proxy_set_header Host $http_host).`,
  405: 'The server refuses this WebSocket. A proxy must pass on the headers Upgrade and Connection. A token must permit it.',
};

// States: closed → connecting → open → closing → closed, by the user;
// connecting or open → waiting → connecting, after a loss.
// Each state has at most one timer; entering the next state cancels it.
function createConnection(currentAddress, observer) {
  let state = 'closed';
  let socket;
  let timer;
  let failures = 0;

  function enter(next, delay, expire) {
    clearTimeout(timer);
    if (expire) timer = setTimeout(expire, delay);
    state = next;
    observer.changed(state, delay);
  }

  function dial() {
    const dialled = new WebSocket(currentAddress());
    const on = (type, react) => dialled.addEventListener(type, (event) => {
      // A replaced socket may still fire its close event.
      if (dialled === socket) react(event);
    });
    on('open', opened);
    on('message', ({ data }) => observer.received(data));
    on('error', () => { if (state !== 'closing') observer.failed(state === 'connecting'); });
    on('close', closed);
    dialled.binaryType = 'arraybuffer';
    socket = dialled;
    enter('connecting', DIAL_TIMEOUT_MS, () => dialled.close());
  }

  function opened() {
    enter('open', STABLE_AFTER_MS, () => { failures = 0; });
    observer.opened();
  }

  function closed({ code, reason }) {
    const byUser = state === 'closing';
    const retries = !byUser && !FINAL_CODES.includes(code);
    observer.closed({ code, reason, byUser, retries });
    if (retries) enter('waiting', backoff(), dial);
    else enter('closed');
  }

  // Full jitter, so that the clients of a restarted server do not reconnect all at once.
  function backoff() {
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** failures);
    failures += 1;
    return Math.random() * ceiling;
  }

  return {
    connect() {
      if (state === 'connecting' || state === 'open') return;
      failures = 0;
      dial();
    },
    disconnect() {
      if (state === 'waiting') enter('closed');
      if (state !== 'connecting' && state !== 'open') return;
      enter('closing');
      socket.close(1000);
    },
    retryNow() {
      if (state === 'waiting') dial();
    },
    // Replaces the connection by one to the current address.
    reconnect() {
      const replaced = socket;
      const wasOpen = state === 'open';
      failures = 0;
      dial();
      replaced?.close(1000);
      if (wasOpen) observer.closed({ code: 1000, reason: '', byUser: true, retries: false });
    },
    send(data) {
      // A closing socket discards data before its close event fires.
      const sendable = state === 'open' && socket.readyState === WebSocket.OPEN;
      if (sendable) socket.send(data);
      return sendable;
    },
  };
}

// Keeps the newest rows. Rows that are dropped before the next frame are never added to the DOM.
function createLog(scroller, rows, note) {
  let queue = [];
  let dropped = 0;
  let pinned = true;
  let lastTop = 0;
  const paintSoon = oncePerFrame(paint);

  function paint() {
    // A screen reader can't read so many rows at once.
    scroller.ariaBusy = queue.length > ANNOUNCED_ROWS;
    rows.append(...queue.map(rowFor));
    queue = [];
    while (rows.childElementCount > ROW_LIMIT) {
      rows.firstElementChild.remove();
      dropped += 1;
    }
    note.textContent = `newest ${ROW_LIMIT} kept, ${grouped(dropped)} dropped`;
    followNewest();
  }

  function followNewest() {
    if (pinned) scroller.scrollTop = scroller.scrollHeight;
  }

  scroller.addEventListener('scroll', () => {
    const { scrollTop, scrollHeight, clientHeight } = scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < 8;
    // A resize can also move the log away from its end, but only the user scrolls up.
    pinned = atEnd || (pinned && scrollTop >= lastTop);
    lastTop = scrollTop;
  });
  new ResizeObserver(followNewest).observe(scroller);

  return {
    add(entry) {
      queue.push({ at: new Date(), ...entry });
      if (queue.length > ROW_LIMIT) {
        queue.shift();
        dropped += 1;
      }
      paintSoon();
    },
  };
}

// Returns `{ data }`, or `{ at, problem }` for the first invalid character.
function parseHex(text) {
  const stray = /[^\da-f\s]/iu.exec(text);
  // The last digit of a run of odd length.
  const half = /\S(?!\S)(?<=(?<!\S)(?:\S\S)*\S)/.exec(text);
  const invalid = stray ?? half;
  if (!invalid) return { data: Uint8Array.from(text.match(/\S\S/g) ?? [], (pair) => parseInt(pair, 16)) };
  const reason = stray ? 'is not a hex digit (0–9, a–f)' : 'is only half a byte; each byte needs two digits';
  return { at: invalid.index, problem: `‘${invalid[0]}’ at character ${invalid.index + 1} ${reason}.` };
}

function hexDump(bytes) {
  const width = matchMedia('(max-width: 50rem)').matches ? 8 : 16;
  const hex = (number) => number.toString(16).padStart(2, '0');
  let dump = '';
  for (let offset = 0; offset < bytes.length; offset += width) {
    const line = [...bytes.subarray(offset, offset + width)];
    const pairs = line.map(hex).join(' ').padEnd(width * 3);
    const ascii = String.fromCharCode(...line).replace(/[^ -~]/g, '.');
    dump += `${hex(offset)}  ${pairs} ${ascii}\n`;
  }
  return dump;
}

export const isText = (data) => typeof data === 'string';

const localTime = (date) => `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, '0')}`;

const inMs = (duration) => `${duration.toFixed(1)} ms`;

const inBytes = (size) => `${grouped(size)} byte${size === 1 ? '' : 's'}`;

function payloadText(data, size) {
  const part = data.slice(0, isText(data) ? SHOWN_CHARACTERS : SHOWN_BYTES);
  const rest = part.length < data.length ? `\n… ${inBytes(size)} in all` : '';
  return (isText(data) ? part : hexDump(part).trimEnd()) + rest || '(empty)';
}

function closeText({ code, reason, byUser, retries }) {
  const meaning = CLOSE_MEANINGS[code] ?? 'unknown code';
  const reasonLine = reason && `\nReason: ${reason}`;
  const final = byUser ? 'You disconnected.' : 'Will not reconnect by itself.';
  return `${code}: ${meaning}. ${retries ? 'Will reconnect.' : final}${reasonLine}`;
}

function rowFor({ kind, at, text, data, size, source = '', roundTrip }) {
  const row = element('li', '');
  const isMessage = text === undefined;
  const type = isMessage ? (isText(data) ? 'text' : 'binary') : '';
  const facts = [source, roundTrip >= 0 && inMs(roundTrip), type, isMessage && inBytes(size)];
  row.className = `${kind} ${type} ${source}`;
  row.append(
    element('time', localTime(at)),
    element('b', kind),
    element('pre', text ?? payloadText(data, size)),
    element('small', facts.filter(Boolean).join(' · ')),
  );
  return row;
}

export const pageUrl = () => location.origin + location.pathname;

// The endpoint of the page: the echo, unless topics.js replaces it.
export const destination = {
  url: pageUrl,
  // Parameters in addition to the query of the page's URL.
  query: () => '',
  // The label of messages that are no echo.
  sourceLabel: () => 'broadcast',
  opened() {},
  received() {},
};
const message = byId('message');
const log = createLog(byId('log'), byId('rows'), byId('log-note'));
const totals = { sent: { messages: 0, bytes: 0 }, received: { messages: 0, bytes: 0 } };
let pending = [];
let lastRoundTrip = '–';
let countdown;

// http becomes ws, https becomes wss.
export const baseAddress = () => destination.url().replace('http', 'ws');

// The page's own query may contain a token; pass '' for an address to show.
function currentAddress(pageQuery = location.search) {
  const query = destination.query();
  return baseAddress() + pageQuery + (query && `${pageQuery ? '&' : '?'}${query}`);
}

export const connection = createConnection(currentAddress, {
  changed: showState,
  opened() {
    pending = [];
    showProblem('');
    log.add({ kind: 'opened', text: `Connected to ${currentAddress('')}` });
    destination.opened();
  },
  received(payload) {
    const data = isText(payload) ? payload : new Uint8Array(payload);
    const roundTrip = matchEcho(data);
    if (roundTrip !== undefined) lastRoundTrip = inMs(roundTrip);
    record({ kind: 'received', data, roundTrip, source: roundTrip === undefined ? destination.sourceLabel() : 'echo' });
    destination.received(data);
  },
  failed(wasConnecting) {
    log.add({ kind: 'error', text: 'The connection failed' });
    if (wasConnecting) explainFailure();
  },
  closed(end) {
    log.add({ kind: 'closed', text: closeText(end) });
  },
});

// A browser does not show why a WebSocket was refused. A POST has the same header Origin, so the server refuses it
// for the same reason; a page that it does not refuse answers 405.
async function explainFailure() {
  const request = { method: 'POST', signal: AbortSignal.timeout(DIAL_TIMEOUT_MS) };
  const { status } = await fetch(pageUrl() + location.search, request).catch(() => ({}));
  const text = FAILURE_CAUSES[status];
  if (text) log.add({ kind: 'error', text });
}

const showTotalsSoon = oncePerFrame(() => {
  for (const [id, { messages, bytes }] of Object.entries(totals)) {
    byId(id).textContent = `${grouped(messages)} · ${inBytes(bytes)}`;
  }
  byId('round-trip').textContent = lastRoundTrip;
});

function expectEcho(data) {
  pending.push({ key: contentKey(data), at: performance.now() });
  if (pending.length > PENDING_LIMIT) pending.shift();
}

const contentKey = (data) => `${typeof data} ${data}`;

// Returns the round trip in ms; undefined if the data is no echo.
function matchEcho(data) {
  if (pending.length === 0) return undefined;
  const key = contentKey(data);
  const index = pending.findIndex((sent) => sent.key === key);
  return index < 0 ? undefined : performance.now() - pending.splice(index, 1)[0].at;
}

function record(entry) {
  const { kind, data } = entry;
  const size = isText(data) ? new TextEncoder().encode(data).length : data.length;
  totals[kind].messages += 1;
  totals[kind].bytes += size;
  log.add({ ...entry, size });
  showTotalsSoon();
}

function showState(state, delay) {
  byId('state').textContent = state === 'waiting' ? 'waiting to reconnect' : state;
  byId('state').className = state;
  // `disabled` would take the focus away.
  byId('connect').ariaDisabled = state === 'connecting' || state === 'open';
  byId('disconnect').ariaDisabled = state === 'closed' || state === 'closing';
  clearInterval(countdown);
  byId('countdown').textContent = '';
  if (state !== 'waiting') return;
  const end = performance.now() + delay;
  countdown = setInterval(showCountdown, 250, end);
  showCountdown(end);
}

function showCountdown(end) {
  const seconds = Math.ceil((end - performance.now()) / 1000);
  byId('countdown').textContent = `in ${Math.max(0, seconds)} s`;
}

function showProblem(problem) {
  byId('problem').textContent = problem;
  message.ariaInvalid = problem !== '';
}

function submit(event) {
  event.preventDefault();
  const { data, problem, at } = byId('hex').checked ? parseHex(message.value) : { data: message.value };
  if (problem) {
    showProblem(problem);
    message.setSelectionRange(at, at + 1);
  } else if (connection.send(data)) {
    expectEcho(data);
    record({ kind: 'sent', data });
    showProblem('');
    message.value = '';
  } else {
    showProblem(`Not sent: the connection is ${byId('state').textContent}. Your text is kept.`);
  }
}

function submitOnEnter(event) {
  // Enter also ends an IME composition.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId('composer').requestSubmit();
}

byId('composer').addEventListener('submit', submit);
byId('connect').addEventListener('click', connection.connect);
byId('disconnect').addEventListener('click', connection.disconnect);
message.addEventListener('keydown', submitOnEnter);
message.addEventListener('input', () => showProblem(''));
window.addEventListener('online', connection.retryNow);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') connection.retryNow();
});
// Runs after all scripts, because topics.js may change the destination.
document.addEventListener('DOMContentLoaded', () => {
  byId('address').textContent = baseAddress();
  connection.connect();
});
