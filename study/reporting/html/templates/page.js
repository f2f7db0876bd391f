"use strict";
// Draws the figures of a page from the JSON beside them, and follows its controls.
(() => {
  const root = document.documentElement;
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d"],
  };
  const PRINTED_PX = 690; // fits A4 and letter

  // A page opened from a file may have no storage: then the theme lasts until the page is closed.
  const storage = {
    get: () => { try { return localStorage.getItem("study-theme"); } catch { return null; } },
    set: (theme) => { try { localStorage.setItem("study-theme", theme); } catch { /* not kept */ } },
  };

  const systemDark = matchMedia("(prefers-color-scheme: dark)");

  function showTheme() {
    const dark = (root.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-pressed", String(dark));
    return dark;
  }

  function switchTheme() {
    root.dataset.theme = showTheme() ? "light" : "dark";
    storage.set(root.dataset.theme);
    showTheme();
  }

  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
  const plots = () => [...document.querySelectorAll(".plot")];

  function linear(figure) {
    const range = figure.layout.meta.linear_range;
    Object.assign(figure.layout.xaxis, { type: "linear", tickvals: null, ticktext: null, range });
  }

  function draw(plot) {
    const drawings = [...plot.parentElement.querySelectorAll("script[type='application/json']")];
    const drawing = drawings.find((one) => one.dataset.axis === chosen("axis")) ?? drawings[0];
    const figure = JSON.parse(drawing.textContent);
    if (figure.layout.meta?.linear_range && chosen("scale") === "linear") linear(figure);
    return Plotly.react(plot, figure.data, figure.layout, config);
  }

  const showOfAxis = () => document.querySelectorAll("[data-of-axis]").forEach((part) => {
    part.hidden = part.dataset.ofAxis !== chosen("axis");
  });

  const countDrawn = () => { root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1); };

  async function drawSwitched() {
    showOfAxis();
    await Promise.all(plots().filter((plot) => plot.dataset.scales).map(draw));
    countDrawn();
  }

  // One figure after another, so that the page reacts to input in between.
  async function drawAll() {
    for (const plot of plots()) {
      await draw(plot);
      await new Promise((next) => setTimeout(next));
    }
    countDrawn();
  }

  // The reader's choices, open parts and focus survive an update.
  function replaceMain(html) {
    const main = document.querySelector("main");
    const choices = ["axis", "scale"].map((name) => document.getElementById(`${name}-${chosen(name)}`)?.id);
    const opened = [...main.querySelectorAll("details")].map((details) => details.open);
    const focused = document.activeElement.id;
    plots().forEach((plot) => Plotly.purge(plot));
    main.innerHTML = html;
    for (const input of choices.map((id) => document.getElementById(id))) if (input) input.checked = true;
    main.querySelectorAll("details").forEach((details, i) => { details.open = opened[i] ?? false; });
    document.getElementById(focused)?.focus({ preventScroll: true });
    showOfAxis();
    return drawAll();
  }

  function follow() {
    const status = document.getElementById("live");
    const events = new EventSource("events");
    events.addEventListener("page", (event) => {
      replaceMain(JSON.parse(event.data));
      status.textContent = `Live: updated ${new Date().toLocaleTimeString()}`;
    });
    events.addEventListener("over", () => {
      events.close();
      status.textContent = "This page is no longer served: the study or its server has ended.";
      status.dataset.state = "over";
    });
    events.addEventListener("error", () => { status.textContent = "Live: no connection; trying again."; });
  }

  if (storage.get()) root.dataset.theme = storage.get();
  document.addEventListener("DOMContentLoaded", () => {
    showTheme();
    systemDark.addEventListener("change", showTheme);
    document.getElementById("theme")?.addEventListener("click", switchTheme);
    document.addEventListener("change", (event) => { if (event.target.matches("[name=axis], [name=scale]")) drawSwitched(); });
    addEventListener("beforeprint", () => plots().forEach((plot) => Plotly.relayout(plot, { width: PRINTED_PX })));
    addEventListener("afterprint", () => plots().forEach((plot) => Plotly.relayout(plot, { width: null, autosize: true })));
    drawAll();
    if (document.getElementById("live")) follow();
  });
})();
