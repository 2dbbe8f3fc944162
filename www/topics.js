// Topics: connects the page to a topic instead of the echo, and draws charts of its numbers.

import { SHOWN_CHARACTERS, baseAddress, connection, destination, isText, pageUrl } from './app.js';

const CHART_LIMIT = 4;
const LINK_LIMIT = 24;
const RETAINED_LIMIT = 64;
const NAME_BYTES = 256;
const NOT_IN_NAMES = /[\p{Cc}+#]|(?:^|\/)\.{0,2}(?:\/|$)/u;

// Returns [path, number] for each number in a JSON text; the path of a bare number is ''.
function numbersIn(text) {
  if (text.length > SHOWN_CHARACTERS) return [];
  const collect = (value, path) => {
    if (typeof value === 'number') return [[path, value]];
    const parts = typeof value === 'object' ? Object.entries(value ?? {}) : [];
    return parts.flatMap(([key, part]) => collect(part, path ? `${path}.${key}` : key));
  };
  try {
    return collect(JSON.parse(text), '').filter(([, number]) => Number.isFinite(number));
  } catch {
    return [];
  }
}

const isTopic = (name) => !NOT_IN_NAMES.test(name) && new TextEncoder().encode(name).length <= NAME_BYTES;

// Returns the name in the fragment of a URL; undefined if the fragment can't be decoded.
function nameIn(fragment) {
  try {
    return decodeURIComponent(fragment.slice(1));
  } catch {
    return undefined;
  }
}

let topic = '';
let isFirstConnection = true;
let charts = new Map();

Object.assign(destination, {
  url: () => (topic ? urlOf(`topics/${encodedTopic(topic)}`) : pageUrl()),
  // A reconnect requests only the newest message, because the page has received the other retained ones before.
  query: () => (topic && `last=${isFirstConnection ? RETAINED_LIMIT : 1}`),
  sourceLabel: () => (topic ? 'published' : 'broadcast'),
  opened() {
    isFirstConnection = false;
    listTopics();
  },
  received(data) {
    if (topic && isText(data)) draw(numbersIn(data));
  },
});

function draw(numbers) {
  for (const [name, number] of numbers) {
    if (!charts.has(name) && charts.size < CHART_LIMIT) charts.set(name, addChart(byId('charts'), name || topic));
    charts.get(name)?.add(number);
  }
}

// The topic is the fragment of the page's URL, so that it can be linked to.
function readTopic() {
  const name = nameIn(location.hash);
  const isValid = name === '' || (name !== undefined && isTopic(name));
  byId('topic-problem').textContent = isValid ? '' : 'A topic name has at most 256 bytes, without + and #, and no part between its slashes is empty, . or .. (in a link, %25 stands for %).';
  byId('topic').ariaInvalid = !isValid;
  if (!isValid) return;
  topic = name;
  isFirstConnection = true;
  charts = new Map();
  byId('charts').textContent = '';
  byId('topic').value = topic;
  byId('message-label').textContent = topic ? `Publish to ${topic}` : 'Your message';
  byId('address').textContent = baseAddress();
  document.title = topic ? `${topic} – falconet` : 'falconet';
  markCurrentLink();
}

function openTopic(event) {
  event.preventDefault();
  location.hash = encodedTopic(byId('topic').value.trim());
}

async function listTopics() {
  const headers = { Accept: 'text/plain' };
  const response = await fetch(urlOf('topics/') + location.search, { headers }).catch(() => undefined);
  const lines = response?.ok ? (await response.text()).split('\n').filter(Boolean) : [];
  const names = lines.map((line) => decodeURIComponent(line.split(' ')[0]));
  byId('topics').replaceChildren(...names.map((name) => Object.assign(element('option', ''), { value: name })));
  const links = names.slice(0, LINK_LIMIT).map((name) => Object.assign(element('a', name), { href: `#${encodedTopic(name)}` }));
  const echo = Object.assign(element('a', 'echo'), { href: '#' });
  byId('places').replaceChildren(...(names.length > 0 || topic ? [echo, ...links] : []));
  markCurrentLink();
}

function markCurrentLink() {
  for (const link of byId('places').children) link.ariaCurrent = nameIn(link.hash) === topic ? 'page' : null;
}

document.querySelector('header').after(byId('place'));
document.querySelector('dl').after(byId('charts'));
byId('place').hidden = false;
byId('place').addEventListener('submit', openTopic);
byId('topic').addEventListener('focus', listTopics);
window.addEventListener('hashchange', () => {
  const before = topic;
  readTopic();
  if (topic !== before) connection.reconnect();
});
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') listTopics();
});
readTopic();
