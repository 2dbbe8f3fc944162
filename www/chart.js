// Charts of the page and the dashboard.

const SAMPLE_LIMIT = 600;
const GAP_MS = 10_000;

const short = (number, digits = 5) => number.toLocaleString('en', { maximumSignificantDigits: digits });

// `span`: the time shown, in ms; without it, the newest SAMPLE_LIMIT numbers are shown.
// `floor`: the lowest y value, unless a number is lower.
function addChart(parent, name, { span, floor = Infinity, show = short } = {}) {
  const samples = [];
  const figure = byId('chart').content.firstElementChild.cloneNode(true);
  const [label, latest, picture, line, range] = figure.querySelectorAll('span, b, svg, path, small');
  label.textContent = name;
  parent.append(figure);
  const paintSoon = oncePerFrame(paint);

  function paint() {
    const numbers = samples.map(({ number }) => number);
    const [min, max] = [Math.min(...numbers, floor), Math.max(...numbers)];
    const { at: end, number: newest } = samples.at(-1);
    // The position of a line whose numbers are all equal.
    const flat = max === floor ? 1 : 0.5;
    const point = ({ at, number }, index) => {
      const x = span ? 300 + ((at - end) / span) * 300 : (index / Math.max(1, samples.length - 1)) * 300;
      const y = 2 + (max > min ? (max - number) / (max - min) : flat) * 56;
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    };
    // A gap in the data is a gap in the line.
    const joins = ({ at }, index) => index > 0 && !(span && at - samples[index - 1].at > GAP_MS);
    const steps = samples.map((sample, index) => (joins(sample, index) ? 'L' : 'M') + point(sample, index));
    // A line to the last point again makes a single sample visible as a dot.
    line.setAttribute('d', `${steps.join('')}L${point(samples.at(-1), samples.length - 1)}`);
    latest.textContent = show(newest);
    range.textContent = (min === floor ? 'up' : show(min)) + ` to ${show(max)}`;
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
