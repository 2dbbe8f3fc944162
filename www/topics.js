// Topics, where the server has some: which one the page connects to in place of the echo, and charts of it.

import { SHOWN_CHARACTERS, baseAddress, connection, isText, place } from '/app.js';

const CHART_LIMIT = 4;
const LINK_LIMIT = 24;
const RETAINED_LIMIT = 64;
const TOPIC_NAME = /^(?!.*(?:^|\/)\.{0,2}(?:\/|$))[\w.\/-]{1,128}$/;

/** The numbers in a message that is a number, or JSON that has some, each with its name. */
function numbersIn(text) {
  if (text.length > SHOWN_CHARACTERS) return [];
  const named = (value, name) => {
    if (typeof value === 'number') return [[name, value]];
    const parts = typeof value === 'object' ? Object.entries(value ?? {}) : [];
    return parts.flatMap(([key, part]) => named(part, name ? `${name}.${key}` : key));
  };
  try {
    return named(JSON.parse(text), '').filter(([, number]) => Number.isFinite(number));
  } catch {
    return [];
  }
}

let topic = '';
let isNew = true;
let charts = new Map();

Object.assign(place, {
  path: () => (topic ? `/topics/${topic}` : location.pathname),
  // A topic tells first what it retains; who comes back has heard it, but for the newest.
  wish: () => (topic && `last=${isNew ? RETAINED_LIMIT : 1}`),
  others: () => (topic ? 'published' : 'broadcast'),
  opened() {
    isNew = false;
    listTopics();
  },
  heard(data) {
    if (topic && isText(data)) draw(numbersIn(data));
  },
});

function draw(numbers) {
  for (const [name, number] of numbers) {
    if (!charts.has(name) && charts.size < CHART_LIMIT) charts.set(name, chartIn(byId('charts'), name || topic));
    charts.get(name)?.add(number);
  }
}

/** The topic is the part of the page's address that no server sees: a link to it can be kept. */
function readTopic() {
  const wanted = location.hash.slice(1);
  const isGood = !wanted || TOPIC_NAME.test(wanted);
  byId('topic-problem').textContent = isGood ? '' : 'A topic’s name is 1 to 128 of A–Z a–z 0–9 . _ - with / between its parts.';
  byId('topic').ariaInvalid = !isGood;
  if (!isGood) return;
  topic = wanted;
  isNew = true;
  charts = new Map();
  byId('charts').textContent = '';
  byId('topic').value = topic;
  byId('message-label').textContent = topic ? `Publish to ${topic}` : 'Your message';
  byId('address').textContent = baseAddress();
  document.title = topic ? `${topic} – falconet` : 'falconet';
  markPlace();
}

function openTopic(event) {
  event.preventDefault();
  location.hash = byId('topic').value.trim();
}

async function listTopics() {
  // A password that is in the page's own address stands in the way of reading what has none.
  const answer = await fetch(`${location.origin}/topics/${location.search}`).catch(() => undefined);
  const names = answer?.ok ? (await answer.json()).map((one) => one.topic) : [];
  byId('topics').replaceChildren(...names.map((name) => Object.assign(element('option', ''), { value: name })));
  const links = names.slice(0, LINK_LIMIT).map((name) => Object.assign(element('a', name), { href: `#${name}` }));
  const echo = Object.assign(element('a', 'echo'), { href: '#' });
  byId('places').replaceChildren(...(names.length > 0 || topic ? [echo, ...links] : []));
  markPlace();
}

function markPlace() {
  for (const link of byId('places').children) link.ariaCurrent = link.hash.slice(1) === topic ? 'page' : null;
}

document.querySelector('header').after(byId('place'));
document.querySelector('dl').after(byId('charts'));
byId('place').hidden = false;
byId('place').addEventListener('submit', openTopic);
byId('topic').addEventListener('focus', listTopics);
window.addEventListener('hashchange', () => {
  const before = topic;
  readTopic();
  if (topic !== before) connection.move();
});
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') listTopics();
});
readTopic();
