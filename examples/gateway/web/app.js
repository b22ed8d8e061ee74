// The page of the gateway. Everything that comes from requests is written as text, never as HTML.
"use strict";

const COLORS = {
  exact: "exact", semantic: "semantic", shared: "shared", precomputed: "shared", miss: "miss", computed: "miss",
  bypass: "other", embedded: "other", gone: "failed", limited: "failed", failed: "failed",
};
const SHOWN = ["exact", "semantic", "shared", "miss", "other", "failed"];
const NAMES = { exact: "exact hit", semantic: "semantic hit", shared: "shared", miss: "generated", other: "others", failed: "limited, failed or gone" };
const STEP = 2000;
const STEPS = 60;
const ROWS = 16;

const byId = (id) => document.getElementById(id);
const color = (kind) => `var(--${kind})`;
const kindOf = (outcome) => COLORS[outcome] ?? "other";

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

const dollars = (micros) => {
  const value = micros / 1e6;
  return "$" + value.toFixed(value < 1 ? 4 : 2);
};
const count = (value) => value.toLocaleString("en");

// ---- live requests

const steps = new Map(); // start of a step -> kind -> number

function take(served) {
  const step = Math.floor(served.at / STEP) * STEP;
  const counts = steps.get(step) ?? {};
  const kind = kindOf(served.outcome);
  counts[kind] = (counts[kind] ?? 0) + 1;
  steps.set(step, counts);
  for (const old of steps.keys()) if (old < Date.now() - STEP * (STEPS + 2)) steps.delete(old);

  const tag = element("span", { className: "tag" }, served.outcome);
  tag.style.background = color(kind);
  const outcome = element("td", {}, tag);
  if (served.similarity) outcome.append(" " + served.similarity.toFixed(3));
  const what = served.prompt ?? served.model;
  const row = element("tr", { title: `${served.request} ${served.model} ${served.upstream ?? ""}` },
    element("td", {}, new Date(served.at).toLocaleTimeString("en-GB")),
    element("td", {}, served.caller),
    element("td", {}, what ? `${served.path}: ${what}` : served.path),
    outcome,
    element("td", { className: "number" }, served.millis.toFixed(1)),
    element("td", { className: "number" }, served.tokens ? count(served.tokens) : ""),
    element("td", { className: "number" }, served.saved_micros ? dollars(served.saved_micros) : ""));
  const body = byId("live").tBodies[0];
  body.prepend(row);
  while (ROWS < body.rows.length) body.lastChild.remove();
}

function draw() {
  const flow = byId("flow");
  const [width, height, floor] = [720, 150, 160];
  const last = Math.floor(Date.now() / STEP) * STEP;
  const columns = [];
  for (let place = 0; place < STEPS; place++) columns.push(steps.get(last - (STEPS - 1 - place) * STEP) ?? {});
  const sums = columns.map((counts) => Object.values(counts).reduce((sum, one) => sum + one, 0));
  const most = Math.max(5, ...sums);
  const bars = [];
  columns.forEach((counts, place) => {
    let top = floor;
    for (const kind of SHOWN) {
      const size = ((counts[kind] ?? 0) / most) * height;
      if (!size) continue;
      top -= size;
      bars.push(drawn("rect", { x: 30 + place * ((width - 30) / STEPS), y: top, width: (width - 30) / STEPS - 2, height: size,
        style: `fill: ${color(kind)}` }));
    }
  });
  const rate = (most / (STEP / 1000)).toFixed(1) + "/s";
  flow.replaceChildren(
    drawn("line", { x1: 30, x2: width, y1: floor, y2: floor, style: "stroke: var(--line)" }),
    drawn("text", { x: 0, y: 16 }, rate), drawn("text", { x: 30, y: 176 }, "2 min ago"),
    drawn("text", { x: width, y: 176, "text-anchor": "end" }, "now"), ...bars);
}

byId("legend").append(...SHOWN.map((kind) => {
  const mark = element("i");
  mark.style.background = color(kind);
  return element("span", {}, mark, NAMES[kind]);
}));

new EventSource("/live").onmessage = (event) => {
  take(JSON.parse(event.data));
  draw();
};
setInterval(draw, STEP);

// ---- the state

function card(value, label) {
  return element("div", { className: "card" }, element("b", {}, value), element("span", { className: "quiet" }, label));
}

function meter(name, left, of, text) {
  const fill = element("i");
  const share = of ? left / of : 0;
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  if (share < 0.2) fill.className = "low";
  return element("div", { className: "meter" }, element("span", {}, name),
    element("div", { className: "bar" }, fill), element("span", { className: "number quiet" }, text));
}

function show(status) {
  const places = Object.entries(status.redis);
  byId("redis").replaceChildren(...places.map(([name, up]) =>
    element("span", { className: up ? "dot" : "dot down" }, name)));
  const down = places.filter(([, up]) => !up).map(([name]) => name);
  byId("degraded").hidden = !down.length;
  byId("degraded").textContent = down.length
    ? `Redis does not answer: ${down.join(", ")}. Answers are generated without it as far as possible.` : "";
  byId("uptime").textContent = `up ${count(status.uptime)} s`;

  const { requests, outcomes, saved_micros, cost_micros, lost_events } = status.totals;
  const of = (...names) => names.reduce((sum, name) => sum + (outcomes[name] ?? 0), 0);
  const hits = of("exact", "semantic", "shared", "precomputed");
  const asked = hits + of("miss", "computed");
  byId("cards").replaceChildren(
    card(count(requests), "requests"),
    card(asked ? `${Math.round((hits / asked) * 100)} %` : "–", "answered without a model"),
    card(count(of("exact")), "exact hits"), card(count(of("semantic")), "semantic hits"),
    card(dollars(saved_micros), "saved"), card(dollars(cost_micros), "spent"),
    card(count(of("limited")), "limited"));

  byId("callers").replaceChildren(...status.callers.flatMap((caller) => [
    element("div", {}, `${caller.name} `, element("span", { className: "quiet" },
      `${caller.plan}, tenant ${caller.tenant}` + (caller.counted ? `, ${count(caller.counted.requests ?? 0)} requests in all` : ""))),
    ...caller.tiers.map((tier) => meter(`${tier.tier} a minute`, tier.left, tier.of, `${count(tier.left)} left`)),
  ]));
  const slots = status.gpu ?? { used: 0, of: 0 };
  byId("gpu").replaceChildren(...Array.from({ length: slots.of }, (_, place) =>
    element("span", { className: place < slots.used ? "slot used" : "slot" })));
  byId("experiments").replaceChildren(...status.experiments.flatMap((experiment) => {
    const calls = experiment.arms.reduce((sum, arm) => sum + arm.calls, 0);
    return [element("div", {}, experiment.name), ...experiment.arms.map((arm) =>
      meter(`${arm.name} (${arm.share / 100} %)`, calls ? arm.calls : 0, calls || 1, `${count(arm.calls)} calls`))];
  }));
  byId("sessions").replaceChildren(...status.sessions.map((session) => element("div", {}, session.name + " ",
    element("span", { className: "quiet" }, `${session.caller}: ${session.messages} messages, ${count(session.tokens)} tokens`))));
  if (!status.sessions.length) byId("sessions").replaceChildren(element("span", { className: "quiet" }, "none yet: name one beside the key"));
  const events = status.events;
  byId("events").replaceChildren(...(events ? [
    element("div", {}, `${events.topic}: ${count(events.length)} events`),
    ...events.groups.map((group) => element("div", { className: "quiet" },
      `group ${group.name}: ${count(group.lag ?? 0)} behind, ${count(group.pending)} at work`)),
    ...(lost_events ? [element("div", { className: "quiet" }, `${count(lost_events)} events could not be published`)] : [])] : []));
}

async function look() {
  try {
    const response = await fetch("/status");
    show(await response.json());
  } catch {
    byId("degraded").hidden = false;
    byId("degraded").textContent = "The gateway does not answer.";
  }
  setTimeout(look, 1500);
}
look();

// ---- the chat box

let model;
byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = byId("question").value.trim() || byId("question").placeholder;
  byId("question").value = "";
  const talk = byId("talk");
  const answer = element("div", { className: "said" });
  const facts = element("div", { className: "quiet" }, "asked …");
  talk.prepend(element("div", { className: "said asked" }, question), answer, facts);
  const button = event.target.querySelector("button");
  button.disabled = true;
  try {
    model ??= (await (await fetch("/status")).json()).models[0];
    const headers = { "content-type": "application/json", authorization: `Bearer ${byId("key").value}` };
    if (byId("session").value) headers["x-session-id"] = byId("session").value;
    const begun = performance.now();
    const response = await fetch("/v1/chat/completions", { method: "POST", headers,
      body: JSON.stringify({ model, stream: true, messages: [{ role: "user", content: question }] }) });
    if (!response.ok) throw new Error((await response.json()).detail);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.slice("data: ".length);
        if (data === "[DONE]") continue;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        answer.textContent += chunk.choices[0]?.delta?.content ?? "";
      }
    }
    const similarity = response.headers.get("x-inferkit-similarity");
    facts.textContent = `${response.headers.get("x-inferkit-cache")}${similarity ? ` (${similarity})` : ""}, ` +
      `${(performance.now() - begun).toFixed(0)} ms`;
  } catch (error) {
    answer.className = "said failed";
    answer.textContent = error.message;
    facts.textContent = "";
  }
  button.disabled = false;
  byId("question").focus();
});
