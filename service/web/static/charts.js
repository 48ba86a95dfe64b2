// The plots of a job's trials: columns of figures from the server, drawn by ECharts on a canvas.
(() => {
  "use strict";
  const { SPARE, colour, short, shown, axis, tooltip, frame, dots, rules, floor, judged, fetched, inTurn, timed, breath } = plotting;
  const plots = document.getElementById("plots");
  const trials = []; // {number, score, metric, cost, started, finished, worker, failed}
  const byNumber = new Map();
  const workers = []; // names of lanes
  let told = null; // the newest answer without its columns
  let last = -1;

  const PIECES = 1000; // of a timeline that many trials fill: what lies closer is one bar
  const opens = (event) => (event.data?.trial === undefined ? null : plots.dataset.trials + event.data.trial);
  const chart = (name) => plotting.chart(name, opens);
  const point = (x, y, trial) => ({ value: [x, y], trial: trial.number });
  const says = (trial) =>
    `trial ${trial.number}\n${trial.metric === null ? "" : `${told.title} ${shown(trial.metric, told.share)}\n`}score ${+trial.score.toPrecision(5)}\n${trial.cost === null ? "" : `${short(trial.cost)} ${told.unit}`}`;
  const formatter = (event) => (event.data?.trial === undefined ? event.name : says(byNumber.get(event.data.trial)));

  const drawPareto = () => {
    const measured = trials.filter((trial) => trial.metric !== null && trial.cost !== null);
    const front = new Set(told.front), best = new Set(told.best);
    const y = judged(measured, told);
    const at = (chosen) => chosen.map((trial) => point(trial.cost, y.of(trial), trial));
    const beaten = measured.filter((trial) => !front.has(trial.number));
    const unbeaten = measured.filter((trial) => front.has(trial.number)).sort((a, b) => a.cost - b.cost);
    const budgets = told.limits.map((limit) => ({ xAxis: limit, label: { formatter: told.limits.length > 1 ? short(limit) : "budget" } }));
    chart("pareto").setOption(frame({
      tooltip: tooltip({ formatter }),
      xAxis: axis({ type: "value", scale: true, name: told.unit, nameGap: 32, axisLabel: { formatter: short }, min: (range) => (told.limits.at(-1) < range.min ? told.limits.at(-1) : undefined), max: (range) => (told.limits[0] > range.max ? told.limits[0] : undefined) }),
      yAxis: axis({ type: "value", scale: true, name: y.name, nameGap: 52, min: floor(measured.map(y.of)), axisLabel: { formatter: y.tick } }),
      series: [
        dots("trial", at(beaten), "--faint", { markLine: rules(budgets, "--winner"), large: beaten.length > SPARE }),
        { name: "beaten by none", type: "line", data: at(unbeaten), symbolSize: 7, symbol: "circle", itemStyle: { color: colour("--strong") }, lineStyle: { width: 1.8 } },
        dots("best", at(measured.filter((trial) => best.has(trial.number))), "--winner", { symbolSize: 14, symbol: "diamond", z: 5 }),
      ],
    }), true);
  };

  const drawHistory = () => {
    const within = (limit) => trials.filter((trial) => trial.score !== null && trial.cost <= limit).sort((a, b) => a.number - b.number);
    const all = told.limits.length ? within(told.limits[0]) : [];
    const line = (limit, place) => {
      let best = -Infinity;
      const steps = (place ? within(limit) : all).map((trial) => [trial.number, (best = Math.max(best, trial.score))]);
      const style = told.limits.length > 1 ? `--hue-${place}` : "--strong";
      return {
        name: told.limits.length > 1 ? `best within ${short(limit)}` : "best so far", type: "line", step: "end", data: steps, showSymbol: false, silent: true,
        itemStyle: { color: colour(style) }, lineStyle: { width: 2, color: colour(style) },
      };
    };
    chart("history").setOption(frame({
      tooltip: tooltip({ formatter }),
      xAxis: axis({ type: "value", name: "trial", nameGap: 32, minInterval: 1 }),
      yAxis: axis({ type: "value", scale: true, name: "score", nameGap: 52, min: floor(all.map((trial) => trial.score)), axisLabel: { formatter: short } }),
      series: [dots("trial", all.map((trial) => point(trial.number, trial.score, trial)), "--faint", { large: all.length > SPARE }), ...told.limits.map(line)],
    }), true);
  };

  // Of very many trials, those of a worker that lie too close to be told apart are one bar.
  const bars = (timed_) => {
    if (timed_.length <= SPARE) return timed_.map((trial) => ({ value: [trial.worker, trial.started, trial.finished], trial: trial.number }));
    const ordered = [...timed_].sort((a, b) => a.started - b.started);
    const close = (ordered.at(-1).finished - ordered[0].started) / PIECES;
    const lanes = new Map(), found = [];
    for (const { worker, started, finished } of ordered) {
      const bar = lanes.get(worker);
      if (bar && started - bar.value[2] < close) { bar.value[2] = Math.max(bar.value[2], finished); bar.several += 1; continue; }
      found.push({ value: [worker, started, finished], several: 1 });
      lanes.set(worker, found.at(-1));
    }
    return found;
  };

  const drawTimeline = () => {
    const timed_ = trials.filter((trial) => trial.started !== null && trial.finished !== null && trial.worker !== null);
    const bar = (params, api) => {
      const [x, y] = api.coord([api.value(1), api.value(0)]), [end] = api.coord([api.value(2), api.value(0)]);
      const height = Math.min(22, 0.7 * api.size([0, 1])[1]);
      const box = echarts.graphic.clipRectByRect({ x, y: y - height / 2, width: Math.max(1.5, end - x - 1), height }, params.coordSys);
      return box && { type: "rect", shape: { ...box, r: 2 }, style: { fill: api.visual("color") } };
    };
    const series = (name, failed, style) => ({ name, type: "custom", renderItem: bar, encode: { x: [1, 2], y: 0 }, data: bars(timed_.filter((trial) => trial.failed === failed)), itemStyle: { color: colour(style) } });
    const told_ = (event) => {
      if (event.data.trial === undefined) return `${event.data.several} trials\n${workers[event.data.value[0]]}`;
      const trial = byNumber.get(event.data.trial);
      return `trial ${trial.number}${trial.failed ? ", failed" : ""}\n${((trial.finished - trial.started) / 1000).toFixed(2)} s\n${workers[trial.worker]}`;
    };
    document.getElementById("timeline").closest("figure").hidden = timed_.length === 0;
    if (!timed_.length) return;
    chart("timeline").setOption(frame({
      useUTC: true,
      tooltip: tooltip({ formatter: told_ }),
      grid: { left: 72, right: 24, top: 36, bottom: 32 },
      xAxis: axis({ type: "time", splitLine: { show: false }, axisLabel: { showMinLabel: false } }), // it would be an odd moment
      yAxis: axis({ type: "category", inverse: true, data: workers.map((_, lane) => `worker ${lane + 1}`) }),
      series: [series("evaluated", false, "--strong"), series("failed", true, "--bad")],
    }), true);
    plotting.chart("timeline").resize();
  };

  // Milliseconds that it took; a breath between two plots lets the page answer.
  const draw = async () => {
    if (told === null) return 0;
    document.getElementById("nothing").hidden = trials.length > 0;
    plots.hidden = trials.length === 0;
    let spent = 0;
    for (const drawn of trials.length ? [drawPareto, drawHistory, drawTimeline] : []) {
      spent += timed(drawn);
      await breath();
    }
    return spent;
  };

  const take = ({ columns, workers: names, ...rest }) => {
    const lanes = names.map((name) => (workers.includes(name) ? workers.indexOf(name) : workers.push(name) - 1));
    const kinds = Object.keys(columns);
    columns.number.forEach((number, row) => {
      const trial = {};
      for (const kind of kinds) trial[kind] = columns[kind][row];
      if (trial.worker !== null) trial.worker = lanes[trial.worker];
      trials.push(trial);
      byNumber.set(number, trial);
    });
    told = rest;
    last = rest.last;
  };

  const ask = inTurn(async () => {
    const answer = await fetched(`${plots.dataset.points}?after=${last}`);
    if (answer === null) return 0;
    const spent = timed(() => take(answer)) + await draw();
    plots.dataset.drawn = trials.length; // for whoever waits for it
    return spent;
  });

  document.body.addEventListener("news", ask);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  ask();
})();
