// The ways of trials from rung to rung, by images or by hours; the best few, or all that the filter lets through.
(() => {
  const {trials, metric, rungs} = report.json("data-curves");
  const value = (id) => document.getElementById(id)?.value;

  function make() {
    const axis = value("curves-axis");
    const top = Number(value("curves-top"));
    const fitting = trials.filter((trial) => report.fits(trial.name));
    const chosen = top ? fitting.slice(0, top) : fitting;
    document.getElementById("curves-shown").textContent = `${chosen.length} of ${trials.length}`;

    // a trace a state, with gaps between its trials
    const traces = new Map();
    let positive = true;
    for (const trial of chosen) {
      if (!traces.has(trial.state)) {
        const color = report.STATES[trial.state] ?? report.STATES.stopped;
        traces.set(trial.state, {
          name: trial.state, x: [], y: [], text: [], mode: "lines+markers", connectgaps: false,
          line: {color, width: 1.5}, marker: {color, size: 6},
          hovertemplate: `%{text}<br>${axis} %{x:.3~g}<br>${metric} %{y:.4~g}<extra></extra>`,
        });
      }
      const trace = traces.get(trial.state);
      trial.score.forEach((score, place) => {
        trace.x.push(trial[axis][place]);
        trace.y.push(score);
        trace.text.push(trial.name);
        positive &&= score > 0;
      });
      trace.x.push(null);
      trace.y.push(null);
      trace.text.push("");
    }
    const dotted = axis === "kimg" && rungs.length <= 12 ? rungs : [];
    const shapes = dotted.map((rung) => (
      {type: "line", x0: rung, x1: rung, y0: 0, y1: 1, yref: "paper", line: {width: 1, dash: "dot"}}
    ));
    const log = value("curves-scale") === "log" && positive;
    return {
      data: [...traces.values()],
      layout: {
        shapes, showlegend: true, legend: {orientation: "h", y: 1.12},
        margin: {l: 10, r: 10, t: 30, b: 10},
        xaxis: {title: {text: axis === "kimg" ? "kimg" : "hours of training"}, automargin: true},
        yaxis: {title: {text: metric}, type: log ? "log" : "linear", automargin: true},
      },
    };
  }

  report.figure("trials", make);
  report.filtered(() => report.redraw("trials"));
  for (const id of ["curves-axis", "curves-top", "curves-scale"]) {
    document.getElementById(id)?.addEventListener("change", () => report.redraw("trials"));
  }
})();
