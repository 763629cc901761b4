/** Runs the calls in a browser, `?url=URL#KEY`, without `url` at the page's own origin, and reports to its server. */

import { runCalls } from "./calls.js"

declare const location: { search: string; hash: string; origin: string }

const url = new URLSearchParams(location.search).get("url") ?? location.origin
const report = await runCalls({ url, token: location.hash.slice(1), sendsStreams: false }).catch(String)
await fetch("/page/report", { method: "POST", body: JSON.stringify(report) })
