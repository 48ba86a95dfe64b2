// The plots by group: what is left of each group of channels in many trials, and what cutting one alone costs.
(() => {
  "use strict";
  const { colour, short, floor, judged, axis, legend, tooltip, frame, fetched, inTurn, timed } = plotting;
  const place = document.getElementById("plans");
  const MORE = 1.02; // times as many trials, before all is asked for again: one more of a thousand changes nothing here
  const ROW = 24; // pixels from one group to the next
  let told = null, wanted = false;

  const opens = (event) => {
    const trial = event.seriesType === "parallel" ? event.data?.trial : event.data?.value?.[2];
    return trial === undefined ? null : place.dataset.trials + trial;
  };
  const part = (name, there) => { document.getElementById(name).closest("figure").hidden = !there; return there; };
  const shortened = (name, most) => (name.length > most ? `…${name.slice(1 - most)}` : name);

  const drawParallel = () => {
    const measured = told.lines.filter((line) => line.metric !== null);
    if (!part("parallel", measured.length > 1 && told.groups.length > 0)) return;
    const box = document.getElementById("parallel");
    const left = box.clientWidth < 500 ? 118 : 190;
    const last = told.groups.length;
    const result = judged(measured, told), reported = measured.map(result.of);
    const high = Math.max(...reported), low = floor(reported) ?? Math.min(...reported);
    const letters = Math.floor((left - 12) / 6.6);
    const line = (trial) => ({ value: [...trial.shares, Math.max(low, result.of(trial))], trial: trial.trial });
    const bare = { axisTick: { show: false }, axisLabel: { formatter: () => "" } }; // ECharts would show labels that are told not to be there
    const common = { nameLocation: "start", nameGap: 10, nameTextStyle: { color: colour("--ink"), fontSize: 11 }, axisLine: { lineStyle: { color: colour("--line") } } };
    box.style.height = `${ROW * last + 110}px`; // by script, which the page's policy allows
    plotting.chart("parallel", opens).resize();
    plotting.chart("parallel").setOption({
      animation: false,
      parallel: { layout: "vertical", left, right: 24, top: 26, bottom: 44, parallelAxisDefault: common },
      parallelAxis: [
        ...told.groups.map((name, dim) => ({ dim, name: shortened(name, letters), min: 0, max: 100, ...common, ...bare, ...(dim === 0 ? { axisLabel: { margin: -18, color: colour("--soft"), formatter: "{value} %" } } : {}) })),
        { dim: last, name: result.name.length > letters ? "score" : result.name, scale: true, min: low, max: high, ...common, axisLine: { lineStyle: { color: colour("--faint") } }, axisLabel: { color: colour("--soft"), hideOverlap: true, showMinLabel: false, showMaxLabel: false, formatter: result.tick } },
      ],
      visualMap: { show: false, type: "continuous", dimension: last, seriesIndex: 0, min: low, max: high, inRange: { color: [colour("--line"), colour("--strong")] } },
      tooltip: tooltip({ formatter: (event) => `trial ${event.data.trial}` }),
      series: [
        { name: "trial", type: "parallel", data: measured.map(line), lineStyle: { width: 1, opacity: 0.55 }, inactiveOpacity: 0.04, smooth: 0 },
        { name: "best", type: "parallel", data: measured.filter((each) => each.trial === told.best).map(line), lineStyle: { width: 3, opacity: 1, color: colour("--winner") }, inactiveOpacity: 0.2, z: 5 },
      ],
    }, true);
    document.getElementById("parallel-note").textContent = told.lines.length < told.of_lines || told.groups.length < told.of_groups
      ? `${told.lines.length.toLocaleString("en")} of ${told.of_lines.toLocaleString("en")} trials that cut several, the best among them; ${told.groups.length} of ${told.of_groups} groups, those that differ the most.` : "";
    document.getElementById("parallel-note").append(" Drag along a line to choose trials by it.");
  };

  const drawSensitivity = () => {
    if (!part("sensitivity", told.curves.length > 0)) return;
    plotting.chart("sensitivity", opens).setOption(frame({
      grid: { left: 72, right: 24, top: 40, bottom: 52 },
      legend: legend({ formatter: (name) => shortened(name, 24) }),
      tooltip: tooltip({ formatter: ({ seriesName, value: [removed, score, trial] }) => `${seriesName}\n${short(removed)} % removed\nscore ${+score.toPrecision(5)}\ntrial ${trial}` }),
      xAxis: axis({ type: "value", min: 0, max: 100, name: "channels of the group removed, %", nameGap: 32 }),
      yAxis: axis({ type: "value", scale: true, name: "score", nameGap: 52, axisLabel: { formatter: short } }),
      series: told.curves.map((curve, hue) => ({
        name: curve.name, type: "line", symbol: "circle", symbolSize: 6, itemStyle: { color: colour(`--hue-${hue}`) }, lineStyle: { width: 1.6 },
        data: curve.points.map((value) => ({ value })), encode: { x: 0, y: 1 },
      })),
    }), true);
    document.getElementById("sensitivity-note").textContent = told.curves.length < told.of_curves ? `The ${told.curves.length} of ${told.of_curves} groups that lose the most.` : "";
  };

  const draw = () => (told === null ? 0 : timed(() => { drawParallel(); drawSensitivity(); }));
  const ask = inTurn(async () => {
    const answer = await fetched(place.dataset.plans);
    if (answer === null) return 0;
    told = answer;
    place.hidden = false;
    const spent = draw();
    place.hidden = !told.curves.length && told.lines.length < 2;
    place.dataset.drawn = told.of_trials; // for whoever waits for it
    return spent;
  });

  // Asked for when it comes into sight, and then when there is more to see.
  new IntersectionObserver(([seen], watch) => {
    if (!seen.isIntersecting) return;
    watch.disconnect();
    wanted = true;
    ask();
  }, { rootMargin: "200px" }).observe(document.getElementById("plans-mark"));
  document.body.addEventListener("news", () => {
    const trials = Number(document.getElementById("head").dataset.finished);
    if (wanted && (told === null || trials >= MORE * told.of_trials)) ask();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
