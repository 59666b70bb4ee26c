// The picture of utility against privacy. Its words and numbers are in the page, so that nothing is lost without it.
(() => {
  const holder = document.getElementById("chart");
  if (!holder || typeof echarts === "undefined") return;
  const SCORES = [20, 40, 60, 80]; // curves of equal score
  let chart = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Points (U, P) with 100 * 2UP / (U + P) = score.
  const curve = (score) => {
    const s = score / 100;
    const points = [];
    for (let u = s / (2 - s); u <= 1.0001; u += 0.01) points.push([u, Math.min(1, (s * u) / (2 * u - s))]);
    return points;
  };

  // Beside its dot, towards the middle; above it at the bottom, where the axis is.
  const place = ({ u, p }) => {
    const side = u > 0.6 ? "left" : "right";
    return p < 0.06 ? { position: "top", align: u > 0.6 ? "right" : "left" } : { position: side };
  };

  const options = (data, points) => {
    const ink = colour("--ink");
    const soft = colour("--soft");
    const line = colour("--line");
    const number = (value) => value.toLocaleString(data.chartLocale, { minimumFractionDigits: 1, maximumFractionDigits: 2 });
    const axis = (name) => ({
      name, min: 0, max: 1, interval: 0.25, nameLocation: "middle", nameGap: 30, type: "value",
      nameTextStyle: { color: soft }, axisLabel: { color: soft, formatter: number },
      axisLine: { lineStyle: { color: line } }, splitLine: { show: false },
    });
    const dots = (own, symbol, fill) => ({
      type: "scatter", symbol, symbolSize: 13, z: 3,
      itemStyle: { color: fill, borderColor: colour("--surface"), borderWidth: 1.5, opacity: 0.95 },
      label: { show: points.length <= 12, formatter: (dot) => dot.data.name, color: ink, fontSize: 11 },
      labelLayout: { hideOverlap: true, moveOverlap: "shiftY" },
      data: points.filter((point) => (point.role === "entry") === own).map((point) => ({
        ...point, value: [point.u, point.p], label: place(point),
      })),
    });
    return {
      animationDuration: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 400,
      textStyle: { fontFamily: "inherit" },
      grid: { left: 48, right: 24, top: 28, bottom: 44 },
      xAxis: axis(data.chartUtility), yAxis: axis(data.chartPrivacy),
      tooltip: {
        renderMode: "richText", backgroundColor: colour("--surface"), borderColor: line, textStyle: { color: ink, fontSize: 12 },
        formatter: ({ data: dot }) =>
          dot.name === undefined ? "" : [
            dot.team ? `${dot.name} (${dot.team})` : dot.name,
            `${data.chartUtility} ${number(dot.u)}`, `${data.chartPrivacy} ${number(dot.p)}`,
            dot.s === null ? "" : `${data.chartScore} ${number(dot.s)}`,
          ].filter(Boolean).join("\n"),
      },
      series: [
        ...(data.chartCurves ? SCORES : []).map((score) => ({
          type: "line", data: curve(score), showSymbol: false, silent: true, z: 1, animation: false,
          lineStyle: { color: line, width: 1.2 }, tooltip: { show: false },
          endLabel: { show: true, formatter: () => String(score), color: soft, fontSize: 10, offset: [-6, -2] },
        })),
        dots(false, "diamond", soft),
        dots(true, "circle", colour("--petrol")),
      ],
    };
  };

  const draw = () => {
    const data = document.querySelector("[data-chart-points]")?.dataset;
    const points = JSON.parse(data?.chartPoints ?? "[]");
    if (!points.length && !chart) return;
    if (!chart) {
      holder.hidden = false;
      chart = echarts.init(holder, null, { renderer: "svg" });
    }
    chart.setOption(options(data, points), { notMerge: false });
  };
  draw();
  document.body.addEventListener("htmx:afterSettle", draw);
  document.addEventListener("theme-changed", draw);
  addEventListener("resize", () => chart?.resize());
})();
