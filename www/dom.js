// Shared by the page and the dashboard.

const byId = (id) => document.getElementById(id);

const element = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });

const grouped = (number) => number.toLocaleString('en');

// Returns the URL of a path relative to the page, so that the server may be below any path. fetch refuses a
// relative URL if the page's URL contains a password.
const urlOf = (path) => location.origin + location.pathname.replace(/[^/]*$/, path);

// Encodes a topic's name for a URL. Its slashes are kept, because some proxies refuse encoded ones.
const encodedTopic = (name) => name.split('/').map(encodeURIComponent).join('/');

function oncePerFrame(draw) {
  let frame = 0;
  return () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  };
}
