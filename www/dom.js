// Shared by the page and the dashboard.

const byId = (id) => document.getElementById(id);

const element = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });

const grouped = (number) => number.toLocaleString('en');

function oncePerFrame(draw) {
  let frame = 0;
  return () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  };
}
