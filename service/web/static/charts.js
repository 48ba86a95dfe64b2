// The plots of a job: columns of figures from the server, drawn by ECharts on a canvas in the page's own colours.
(() => {
  "use strict";
  const plots = document.getElementById("plots");
  const trials = []; // {number, score, metric, cost, started, finished, worker, failed}
  const workers = []; // names of lanes
  let told = null; // the newest answer without its columns
  let last = -1;
  let asking = false, again = false;

  const SPARE = 3000; // points from which on the plots draw without frills
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => {
    for (const [unit, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (Math.abs(value) >= unit) return `${+(value / unit).toPrecision(4)}${prefix}`;
    }
    return `${+value.toPrecision(4)}`;
  };
  const shown = (value) => (told.share ? `${(100 * value).toFixed(2)} %` : `${+value.toPrecision(5)}`);

  const charts = {};
  const chart = (name) => {
    if (!charts[name]) {
      charts[name] = echarts.init(document.getElementById(name));
      charts[name].on("click", (event) => {
        if (event.value?.trial !== undefined || event.data?.trial !== undefined) location.href = plots.dataset.trials + event.data.trial;
      });
    }
    return charts[name];
  };

  const axis = (more) => ({
    axisLabel: { color: colour("--soft") },
    axisLine: { lineStyle: { color: colour("--faint") } },
    splitLine: { lineStyle: { color: colour("--line") } },
    nameTextStyle: { color: colour("--ink") },
    nameLocation: "middle",
    ...more,
  });
  const frame = (more) => ({
    animation: false,
    grid: { left: 72, right: 24, top: 40, bottom: 52 },
    legend: { top: 4, left: 72, textStyle: { color: colour("--ink") }, itemHeight: 10 },
    tooltip: {
      renderMode: "richText", // drawn, not written: the page allows no style of its own
      confine: true,
      backgroundColor: colour("--paper"),
      borderColor: colour("--line"),
      textStyle: { color: colour("--ink"), fontSize: 12 },
    },
    ...more,
  });
  const dots = (name, data, style, more) => ({
    name, type: "scatter", data, itemStyle: { color: colour(style) }, symbolSize: data.length > SPARE ? 4 : 8, ...more,
  });

  // The lowest tenth may take the axis down by half as much again as the others do; what lies deeper is left out of sight.
  const floor = (values) => {
    const ordered = [...values].sort((a, b) => a - b);
    const high = ordered.at(-1), low = ordered[Math.floor(0.1 * ordered.length)];
    const deepest = high - 1.5 * (high - low);
    return high > low && ordered[0] < deepest ? deepest : undefined;
  };
  const point = (x, y, trial) => ({ value: [x, y], trial: trial.number });
  const says = (trial) =>
    `trial ${trial.number}\n${trial.metric === null ? "" : `${told.title} ${shown(trial.metric)}\n`}score ${+trial.score.toPrecision(5)}\n${trial.cost === null ? "" : `${short(trial.cost)} ${told.unit}`}`;
  const formatter = (byNumber) => (event) => (event.data?.trial === undefined ? event.name : says(byNumber.get(event.data.trial)));

  const drawPareto = (byNumber) => {
    const measured = trials.filter((trial) => trial.metric !== null && trial.cost !== null);
    const front = new Set(told.front);
    const at = (chosen) => chosen.map((trial) => point(trial.cost, trial.metric, trial));
    const beaten = measured.filter((trial) => !front.has(trial.number));
    const unbeaten = measured.filter((trial) => front.has(trial.number)).sort((a, b) => a.cost - b.cost);
    const budget = told.limit === null ? undefined : {
      symbol: "none", silent: true, data: [{ xAxis: told.limit }],
      lineStyle: { color: colour("--winner"), type: "dashed" }, label: { formatter: "budget", color: colour("--winner"), position: "end", distance: 4 },
    };
    const low = floor(measured.map((trial) => trial.metric));
    chart("pareto").setOption(frame({
      tooltip: { ...frame().tooltip, formatter: formatter(byNumber) },
      xAxis: axis({ type: "value", scale: true, name: told.unit, nameGap: 32, axisLabel: { color: colour("--soft"), formatter: short, hideOverlap: true }, max: (range) => (told.limit > range.max ? told.limit : undefined) }),
      yAxis: axis({ type: "value", scale: true, name: told.title, nameGap: 52, min: low, axisLabel: { color: colour("--soft"), formatter: (value) => (told.share ? `${+(100 * value).toFixed(1)} %` : short(value)) } }),
      series: [
        dots("trial", at(beaten), "--faint", { markLine: budget, large: beaten.length > SPARE }),
        { name: "beaten by none", type: "line", data: at(unbeaten), symbolSize: 7, symbol: "circle", itemStyle: { color: colour("--strong") }, lineStyle: { width: 1.8 } },
        dots("best", at(measured.filter((trial) => trial.number === told.best)), "--winner", { symbolSize: 14, symbol: "diamond", z: 5 }),
      ],
    }), true);
  };

  const drawHistory = (byNumber) => {
    const within = trials.filter((trial) => trial.score !== null && told.limit !== null && trial.cost <= told.limit).sort((a, b) => a.number - b.number);
    let best = -Infinity;
    const steps = within.map((trial) => [trial.number, (best = Math.max(best, trial.score))]);
    chart("history").setOption(frame({
      tooltip: { ...frame().tooltip, formatter: formatter(byNumber) },
      xAxis: axis({ type: "value", name: "trial", nameGap: 32, minInterval: 1 }),
      yAxis: axis({ type: "value", scale: true, name: "score", nameGap: 52, min: floor(within.map((trial) => trial.score)), axisLabel: { color: colour("--soft"), formatter: short } }),
      series: [
        dots("trial", within.map((trial) => point(trial.number, trial.score, trial)), "--faint", { large: within.length > SPARE }),
        { name: "best so far", type: "line", step: "end", data: steps, showSymbol: false, silent: true, itemStyle: { color: colour("--strong") }, lineStyle: { width: 2 } },
      ],
    }), true);
  };

  const drawTimeline = (byNumber) => {
    const timed = trials.filter((trial) => trial.started !== null && trial.finished !== null && trial.worker !== null);
    const lanes = (failed) => timed.filter((trial) => trial.failed === failed).map((trial) => ({ value: [trial.worker, trial.started, trial.finished], trial: trial.number }));
    const bar = (params, api) => {
      const [x, y] = api.coord([api.value(1), api.value(0)]), [end] = api.coord([api.value(2), api.value(0)]);
      const height = Math.min(22, 0.7 * api.size([0, 1])[1]);
      const box = echarts.graphic.clipRectByRect({ x, y: y - height / 2, width: Math.max(1.5, end - x - 1), height }, params.coordSys);
      return box && { type: "rect", shape: { ...box, r: 2 }, style: { fill: api.visual("color") } };
    };
    const series = (name, failed, style) => ({ name, type: "custom", renderItem: bar, encode: { x: [1, 2], y: 0 }, data: lanes(failed), itemStyle: { color: colour(style) } });
    const told_ = (event) => {
      const trial = byNumber.get(event.data.trial);
      return `trial ${trial.number}${trial.failed ? ", failed" : ""}\n${((trial.finished - trial.started) / 1000).toFixed(2)} s\n${workers[trial.worker]}`;
    };
    document.getElementById("timeline").closest("figure").hidden = timed.length === 0;
    if (!timed.length) return;
    chart("timeline").setOption(frame({
      useUTC: true,
      tooltip: { ...frame().tooltip, formatter: told_ },
      grid: { left: 72, right: 24, top: 36, bottom: 32 },
      xAxis: axis({ type: "time", splitLine: { show: false }, axisLabel: { color: colour("--soft"), hideOverlap: true } }),
      yAxis: axis({ type: "category", inverse: true, data: workers.map((_, lane) => `worker ${lane + 1}`) }),
      series: [series("evaluated", false, "--strong"), series("failed", true, "--bad")],
    }), true);
    charts.timeline.resize();
  };

  const draw = () => {
    if (told === null) return;
    document.getElementById("nothing").hidden = trials.length > 0;
    plots.hidden = trials.length === 0;
    if (!trials.length) return;
    const byNumber = new Map(trials.map((trial) => [trial.number, trial]));
    for (const drawn of [drawPareto, drawHistory, drawTimeline]) drawn(byNumber);
  };

  const take = ({ columns, workers: names, ...rest }) => {
    const lanes = names.map((name) => (workers.includes(name) ? workers.indexOf(name) : workers.push(name) - 1));
    columns.number.forEach((number, row) => {
      const trial = Object.fromEntries(Object.keys(columns).map((name) => [name, columns[name][row]]));
      trials.push({ ...trial, worker: trial.worker === null ? null : lanes[trial.worker] });
    });
    told = rest;
    last = rest.last;
  };

  const ask = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await fetch(`${plots.dataset.points}?after=${last}`, { headers: { Accept: "application/json" } });
      if (answer.ok && !answer.redirected) {
        take(await answer.json());
        draw();
        plots.dataset.drawn = trials.length; // for whoever waits for it
      }
    } catch { /* the stream comes again when the server does, and with it the next asking */ }
    asking = false;
    if (again) { again = false; ask(); }
  };

  document.body.addEventListener("news", ask);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => { for (const each of Object.values(charts)) each.resize(); }).observe(plots);
  ask();
})();
