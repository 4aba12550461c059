// Scores against hours of training, and the line of what is beaten by nothing cheaper.
(() => {
  const {points, metric} = report.json("data-pareto");

  function make(palette) {
    const chosen = points.filter((point) => report.fits(point.name));
    const trace = (name, some, look) => ({
      name, x: some.map((point) => point.hours), y: some.map((point) => point.score),
      text: some.map((point) => `${point.name}<br>${report.rounded(point.kimg)} kimg`),
      mode: "markers", hovertemplate: `%{text}<br>%{x:.3~g} h<br>${metric} %{y:.4~g}<extra></extra>`,
      ...look,
    });
    const trials = chosen.filter((point) => point.kind === "trial");
    const data = [];
    for (const state of new Set(trials.map((point) => point.state))) {
      const color = report.STATES[state] ?? report.STATES.stopped;
      data.push(trace(state, trials.filter((point) => point.state === state), {marker: {color, size: 8}}));
    }
    const front = trials.filter((point) => point.front);
    data.push(trace("front", front, {mode: "lines", line: {color: palette.best, shape: "hv", width: 2}, hoverinfo: "skip", hovertemplate: null}));
    const finalists = chosen.filter((point) => point.kind === "finalist");
    data.push(trace("finalist", finalists, {marker: {color: palette.best, size: 12, symbol: "diamond-open", line: {width: 2}}}));
    const positive = chosen.every((point) => point.score > 0);
    return {
      data,
      layout: {
        showlegend: true, legend: {orientation: "h", y: 1.12}, margin: {l: 10, r: 10, t: 30, b: 10},
        xaxis: {title: {text: "hours of training"}, type: "log", automargin: true},
        yaxis: {title: {text: metric}, type: positive ? "log" : "linear", automargin: true},
      },
    };
  }

  report.figure("front", make);
  report.filtered(() => report.redraw("front"));
})();
