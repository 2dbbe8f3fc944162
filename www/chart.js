// The charts of topics and of the dashboard, which has this in itself.

const SAMPLE_LIMIT = 600;
const GAP_MS = 10_000;

const short = (number, digits = 5) => number.toLocaleString('en', { maximumSignificantDigits: digits });

/**
 * A small live line with its name, its latest number and its range. It shows `span` ms of the past if that
 * is given, else the newest numbers; and begins at `floor`, or at the least there is.
 */
function chartIn(parent, name, { span, floor = Infinity, show = short } = {}) {
  const samples = [];
  const figure = byId('chart').content.firstElementChild.cloneNode(true);
  const [label, latest, picture, line, range] = figure.querySelectorAll('span, b, svg, path, small');
  label.textContent = name;
  parent.append(figure);
  const paintSoon = oncePerFrame(paint);

  function paint() {
    const numbers = samples.map(({ number }) => number);
    const [least, most] = [Math.min(...numbers, floor), Math.max(...numbers)];
    const { at: end, number: newest } = samples.at(-1);
    // Without ups and downs it lies in the middle, or on the floor.
    const flat = most === floor ? 1 : 0.5;
    const place = ({ at, number }, index) => {
      const x = span ? 300 + ((at - end) / span) * 300 : (index / Math.max(1, samples.length - 1)) * 300;
      const y = 2 + (most > least ? (most - number) / (most - least) : flat) * 56;
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    };
    // What was not heard is not drawn.
    const joins = ({ at }, index) => index > 0 && !(span && at - samples[index - 1].at > GAP_MS);
    const steps = samples.map((sample, index) => (joins(sample, index) ? 'L' : 'M') + place(sample, index));
    // Gone to twice, a place of its own shows as a dot.
    line.setAttribute('d', `${steps.join('')}L${place(samples.at(-1), samples.length - 1)}`);
    latest.textContent = show(newest);
    range.textContent = (least === floor ? 'up' : show(least)) + ` to ${show(most)}`;
    picture.ariaLabel = `${name}: now ${latest.textContent}, ${range.textContent}`;
  }

  return {
    add(number, at = 0) {
      samples.push({ number, at });
      if (samples.length > SAMPLE_LIMIT) samples.shift();
      while (span && at - samples[0].at > span) samples.shift();
      paintSoon();
    },
  };
}
