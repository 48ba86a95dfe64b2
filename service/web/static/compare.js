// The plots of several jobs together: each has its colour, which the table shows beside its name.
(() => {
  "use strict";
  const { colour, short, judged, axis, tooltip, frame, rules, fetched, inTurn, timed } = plotting;
  const plots = document.getElementById("plots");
  let told = null, y = null;
  const chart = (name) => plotting.chart(name, (event) => (event.data?.trial === undefined ? null : `/ui/jobs/${event.data.job}/trials/${event.data.trial}`));

  const letters = 28;
  const titled = (job, place) => `${place + 1} ${job.name.length > letters ? `${job.name.slice(0, letters)}…` : job.name}`;
  const line = (job, place, data, more) => ({
    name: titled(job, place), type: "line", symbol: "circle", symbolSize: 6, data,
    itemStyle: { color: colour(`--hue-${place}`) }, lineStyle: { width: 2 }, ...more,
  });
  const stroke = (size) => (size ? [Math.max(2, 10 - 2 * size), 4] : "solid"); // the smaller the budget, the shorter its dashes
  const upright = () => axis({ type: "value", scale: true, name: y.name, nameGap: 52, axisLabel: { formatter: y.tick } });

  const steps = (job, budget) => {
    const found = budget.steps.map((step) => ({ value: [step.trial, y.of(step)], trial: step.trial, job: job.id, budget: budget.text }));
    // No better one since: the line goes on to the newest trial.
    return found.length ? [...found, { ...found.at(-1), value: [job.last, found.at(-1).value[1]], symbol: "none" }] : found;
  };
  const drawHistory = () => chart("history").setOption(frame({
    tooltip: tooltip({ formatter: ({ seriesName, data }) => `${seriesName}, ${data.budget}\ntrial ${data.trial}: ${y.shown(data.value[1])}` }),
    xAxis: axis({ type: "value", name: "trial", nameGap: 32, minInterval: 1 }),
    yAxis: upright(),
    // Of one name, so that the legend has each job once.
    series: told.jobs.flatMap((job, place) => job.budgets.map((budget, size) => line(job, place, steps(job, budget), { step: "end", lineStyle: { width: 2, type: stroke(size) } }))),
  }), true);

  // The jobs that have that budget, said by the first of them: others' letters would stand upon its own.
  const within = (limit, place) => {
    const having = told.jobs.flatMap((job, each) => (job.budgets.some((budget) => budget.limit === limit) ? [each] : []));
    return having[0] === place ? having.map((each) => each + 1).join(", ") : "";
  };
  const drawPareto = () => chart("pareto").setOption(frame({
    tooltip: tooltip({ formatter: ({ seriesName, data }) => `${seriesName}\ntrial ${data.trial}: ${y.shown(data.value[1])}, ${short(data.value[0])} ${told.unit}` }),
    xAxis: axis({ type: "value", scale: true, name: told.unit, nameGap: 32, axisLabel: { formatter: short } }),
    yAxis: upright(),
    series: told.jobs.map((job, place) => line(job, place, job.front.map((point) => ({ value: [point.cost, y.of(point)], trial: point.trial, job: job.id })), {
      markLine: rules(job.budgets.filter((budget) => budget.limit !== null).map((budget) => ({ xAxis: budget.limit, label: { formatter: within(budget.limit, place) } })), `--hue-${place}`),
    })),
  }), true);

  const draw = () => {
    if (told === null) return 0;
    y = judged(told.jobs.flatMap((job) => job.budgets.flatMap((budget) => budget.steps)), told);
    plots.hidden = told.title === null;
    document.getElementById("unlike").hidden = told.title !== null;
    return told.title === null ? 0 : timed(() => { drawHistory(); drawPareto(); });
  };
  const ask = inTurn(async () => {
    const answer = await fetched(plots.dataset.points);
    if (answer === null) return 0;
    told = answer;
    const spent = draw();
    plots.dataset.drawn = told.jobs.length; // for whoever waits for it
    return spent;
  });
  document.body.addEventListener("news", ask);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  ask();
})();
