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
  1000: 'a normal end',
  1001: 'the server is going away',
  1002: 'the protocol was violated',
  1003: 'such data is refused',
  1005: 'no code was given',
  1006: 'no connection, or one that broke',
  1007: 'a message did not fit its type',
  1008: 'the server’s policy forbids it',
  1009: 'a message was too big for the server',
  1011: 'the server failed',
  1012: 'the server is restarting',
  1013: 'the server is busy',
};

/**
 * Decides when to dial, close and retry; nothing else touches a WebSocket.
 *
 *   closed → connecting → open → closing → closed    at the user's wish
 *   connecting or open → waiting → connecting        after a loss
 *
 * A state owns at most one timer; entering the next state cancels it.
 */
function connectionTo(addressNow, observer) {
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
    const dialled = new WebSocket(addressNow());
    const on = (type, react) => dialled.addEventListener(type, (event) => {
      // A socket already replaced may still report its end.
      if (dialled === socket) react(event);
    });
    on('open', opened);
    on('message', ({ data }) => observer.received(data));
    on('error', () => { if (state !== 'closing') observer.failed(); });
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

  // Full jitter: the clients of a restarted server must not return all at once.
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
    wake() {
      if (state === 'waiting') dial();
    },
    /** Leaves where it is for where it shall be now. */
    move() {
      const left = socket;
      const wasThere = state === 'open';
      failures = 0;
      dial();
      left?.close(1000);
      if (wasThere) observer.closed({ code: 1000, reason: '', byUser: true, retries: false });
    },
    send(data) {
      // A closing socket drops data before its close event comes.
      const sendable = state === 'open' && socket.readyState === WebSocket.OPEN;
      if (sendable) socket.send(data);
      return sendable;
    },
  };
}

/** The newest rows; what a flood pushes out between two frames never reaches the DOM. */
function logIn(scroller, rows, note) {
  let queue = [];
  let dropped = 0;
  let pinned = true;
  let lastTop = 0;
  const paintSoon = oncePerFrame(paint);

  function paint() {
    // No screen reader keeps up with a flood.
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
    // A log that shrinks leaves its end too, but only a reader scrolls up.
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

/** The data, or what is wrong with which character. */
function parseHex(text) {
  const stray = /[^\da-f\s]/iu.exec(text);
  // The last digit of a run of odd length.
  const half = /\S(?!\S)(?<=(?<!\S)(?:\S\S)*\S)/.exec(text);
  const wrong = stray ?? half;
  if (!wrong) return { data: Uint8Array.from(text.match(/\S\S/g) ?? [], (pair) => parseInt(pair, 16)) };
  const complaint = stray ? 'is not a hex digit (0–9, a–f)' : 'is half a byte; write two digits for each';
  return { at: wrong.index, problem: `‘${wrong[0]}’ at character ${wrong.index + 1} ${complaint}.` };
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
  const meaning = CLOSE_MEANINGS[code] ?? 'a code unknown to this page';
  const said = reason && `\nReason: ${reason}`;
  const onPurpose = byUser ? 'You disconnected.' : 'The server meant it: no automatic reconnect.';
  return `${code}: ${meaning}. ${retries ? 'Will reconnect.' : onPurpose}${said}`;
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

/** Where the page connects to: here to an echo, which tells also what is broadcast. */
export const place = {
  path: () => location.pathname,
  /** What is asked of it beside what stands in the page's query. */
  wish: () => '',
  /** How what comes is called that is no echo. */
  others: () => 'broadcast',
  opened() {},
  heard() {},
};
const message = byId('message');
const log = logIn(byId('log'), byId('rows'), byId('log-note'));
const totals = { sent: { messages: 0, bytes: 0 }, received: { messages: 0, bytes: 0 } };
let pending = [];
let lastRoundTrip = '–';
let countdown;

// http becomes ws, https becomes wss.
export const baseAddress = () => location.origin.replace('http', 'ws') + place.path();

/** What stands in the query may be a token, and is left out of what is shown. */
function addressNow(query = location.search) {
  const wish = place.wish();
  return baseAddress() + query + (wish && `${query ? '&' : '?'}${wish}`);
}

export const connection = connectionTo(addressNow, {
  changed: showState,
  opened() {
    pending = [];
    complain('');
    log.add({ kind: 'opened', text: `Connected to ${addressNow('')}` });
    place.opened();
  },
  received(payload) {
    const data = isText(payload) ? payload : new Uint8Array(payload);
    const roundTrip = settle(data);
    if (roundTrip !== undefined) lastRoundTrip = inMs(roundTrip);
    record({ kind: 'received', data, roundTrip, source: roundTrip === undefined ? place.others() : 'echo' });
    place.heard(data);
  },
  failed() {
    log.add({ kind: 'error', text: 'The connection failed' });
  },
  closed(end) {
    log.add({ kind: 'closed', text: closeText(end) });
  },
});

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

/** The round trip in ms; undefined for what is no echo. */
function settle(data) {
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
  // `disabled` would lose the focus.
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

function complain(problem) {
  byId('problem').textContent = problem;
  message.ariaInvalid = problem !== '';
}

function submit(event) {
  event.preventDefault();
  const { data, problem, at } = byId('hex').checked ? parseHex(message.value) : { data: message.value };
  if (problem) {
    complain(problem);
    message.setSelectionRange(at, at + 1);
  } else if (connection.send(data)) {
    expectEcho(data);
    record({ kind: 'sent', data });
    complain('');
    message.value = '';
  } else {
    complain(`Not sent: the connection is ${byId('state').textContent}. Your text is kept.`);
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
message.addEventListener('input', () => complain(''));
window.addEventListener('online', connection.wake);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') connection.wake();
});
// Once all scripts have run, of which another may have put something else in the echo's place.
document.addEventListener('DOMContentLoaded', () => {
  byId('address').textContent = baseAddress();
  connection.connect();
});
