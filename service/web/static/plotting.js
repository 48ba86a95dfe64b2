// What all plots share: the page's own colours, figures in few letters, axes, and a chart by the id of its place.
const plotting = (() => {
  "use strict";
  const SPARE = 3000; // points from which on plots draw without frills
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => {
    for (const [unit, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (Math.abs(value) >= unit) return `${+(value / unit).toPrecision(4)}${prefix}`;
    }
    return `${+value.toPrecision(4)}`;
  };
  // Figures of a job's metric, which may be shares: whole, and on an axis.
  const shown = (value, share) => (share ? `${(100 * value).toFixed(2)} %` : `${+value.toPrecision(5)}`);
  const tick = (share) => (value) => (share ? `${+(100 * value).toFixed(1)} %` : short(value));

  const axis = (more) => ({
    axisLine: { lineStyle: { color: colour("--faint") } },
    splitLine: { lineStyle: { color: colour("--line") } },
    nameTextStyle: { color: colour("--ink") },
    nameLocation: "middle",
    ...more,
    axisLabel: { color: colour("--soft"), hideOverlap: true, showMinLabel: more.min === undefined, ...more.axisLabel }, // a floor is no round number
  });
  const legend = (more) => ({
    top: 4, left: 72, right: 24, type: "scroll", textStyle: { color: colour("--ink") }, itemHeight: 12, itemWidth: 20,
    pageTextStyle: { color: colour("--soft") }, pageIconColor: colour("--ink"), pageIconInactiveColor: colour("--line"), ...more,
  });
  const tooltip = (more) => ({
    renderMode: "richText", // drawn, not written: the page allows no style of its own
    confine: true,
    backgroundColor: colour("--paper"),
    borderColor: colour("--line"),
    textStyle: { color: colour("--ink"), fontSize: 12 },
    ...more,
  });
  const frame = (more) => ({ animation: false, grid: { left: 72, right: 24, top: 40, bottom: 52 }, legend: legend(), tooltip: tooltip(), ...more });
  const dots = (name, data, style, more) => ({
    name, type: "scatter", data, itemStyle: { color: colour(style) }, symbolSize: data.length > SPARE ? 4 : 8, ...more,
  });
  const rules = (data, style) => ({
    symbol: "none", silent: true, data, lineStyle: { color: colour(style), type: "dashed" },
    label: { color: colour(style), position: "end", distance: 4 },
  });

  // The lowest tenth may take the axis down by half as much again as the others do; what lies deeper is left out of sight.
  const floor = (values) => {
    const ordered = [...values].sort((a, b) => a - b);
    const high = ordered.at(-1), low = ordered[Math.floor(0.1 * ordered.length)];
    const deepest = high - 1.5 * (high - low);
    return high > low && ordered[0] < deepest ? deepest : undefined;
  };

  // Figures that are mostly the best there is tell plans apart no more; scores still do, and a plot then shows those.
  const judged = (trials, told) => {
    const metrics = trials.map((trial) => trial.metric);
    const counts = metrics.reduce((found, metric) => found.set(metric, (found.get(metric) ?? 0) + 1), new Map());
    const alike = metrics.length > 2 && Math.max(...counts.values()) > metrics.length / 2;
    return alike
      ? { of: (trial) => trial.score, name: `score (most have the same ${told.title})`, tick: short, shown: (value) => `score ${shown(value, false)}` }
      : { of: (trial) => trial.metric, name: told.title, tick: tick(told.share), shown: (value) => `${told.title} ${shown(value, told.share)}` };
  };

  const charts = {};
  const chart = (name, opens) => {
    if (!charts[name]) {
      const place = document.getElementById(name);
      charts[name] = echarts.init(place);
      if (opens) charts[name].on("click", (event) => { const address = opens(event); if (address) location.href = address; });
      new ResizeObserver(() => charts[name].resize()).observe(place);
    }
    return charts[name];
  };

  const fetched = async (address) => {
    try {
      const answer = await fetch(address, { headers: { Accept: "application/json" } });
      return answer.ok && !answer.redirected ? await answer.json() : null;
    } catch { return null; } // the stream comes again when the server does, and with it the next asking
  };

  // Does that again whenever it is asked to, one at a time, and rests in between so that the page stays quick to answer.
  const REST = 15; // times as long as the work took
  const inTurn = (work) => {
    let busy = false, again = false;
    const turn = async () => {
      if (busy) { again = true; return; }
      busy = true;
      const spent = await work();
      setTimeout(() => {
        busy = false;
        if (again) { again = false; turn(); }
      }, REST * (spent ?? 0));
    };
    return turn;
  };
  const timed = (work) => { const began = performance.now(); work(); return performance.now() - began; };
  const breath = () => new Promise((done) => { setTimeout(done); });

  return { SPARE, colour, short, shown, tick, axis, legend, tooltip, frame, dots, rules, floor, judged, chart, fetched, inTurn, timed, breath };
})();
