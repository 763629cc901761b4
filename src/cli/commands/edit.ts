/** `bhatti edit`. */

import { command } from "../command.ts"
import { egressOptions, egressText, netPolicyOf, refuseEgress } from "../egress.ts"
import { settingFlags, settingLines, settingNames, settingOptions, settingsOf } from "../sandbox-settings.ts"
import { servicesFrom } from "../services.ts"
import { labelsText } from "../words.ts"

export const edit = command({
  args: ["sandbox"],
  description: `Changes only the given settings. The host name inside changes at the sandbox's next boot.

--egress, --allow-host and --allow-cidr replace all its network rules immediately: open connections that the new rules forbid end.

--service and --service-remove wake the sandbox and change its services at once; services that stay the same run on. A service whose program
does not exist is refused, and then nothing is changed.`,
  options: {
    name: { type: "text", value: "NAME", summary: "Its new name" },
    keepHot: { type: "switch", summary: "Never pause it, however idle" },
    allowCold: { type: "switch", summary: "Write it to disk when it is paused for long" },
    ...settingOptions,
    label: { type: "labels", value: "K=V,...", summary: "Label to set; may be repeated" },
    ...egressOptions,
    labelDelete: { type: "list", value: "KEY", summary: "Label to remove; may be repeated" },
    service: {
      type: "list",
      value: "NAME[:POLICY]=CMD",
      summary: "Service to add, or to replace by another command; may be repeated",
    },
    serviceRemove: { type: "list", value: "NAME", summary: "Service to end and remove; may be repeated" },
  },
  refuse: ({ options }) => {
    const refused = refuseEgress(options)
    if (refused !== undefined) return refused
    const { name, keepHot, allowCold, label, labelDelete, service, serviceRemove } = options
    const settings = settingNames.map((one) => options[one])
    const given = [
      name,
      keepHot,
      allowCold,
      ...settings,
      label,
      labelDelete,
      service,
      serviceRemove,
      netPolicyOf(options),
    ]
    return given.every(
      (one) => one === undefined || (typeof one === "object" && Object.keys(one).length === 0),
    )
      ? `nothing to change: give --name, --keep-hot, --allow-cold, ${settingFlags}, --egress, --allow-host, --allow-cidr, --label, --label-delete, --service or --service-remove`
      : undefined
  },
  examples: [
    "bhatti edit dev --keep-hot",
    "bhatti edit dev --keep-hot off --allow-cold off",
    "bhatti edit dev --egress deny --allow-host api.example.com",
    "bhatti edit dev --warm-after 10m --cold-after never",
    "bhatti edit dev --ttl 4h --on-ttl pause",
    "bhatti edit dev --ttl never",
    "bhatti edit dev --service worker:on-failure='npm run work' --service-remove cron",
    "bhatti edit dev --name web --label team=web --label-delete tmp",
  ],
  async run({ client, args, options, isJson, out }) {
    const netPolicy = netPolicyOf(options)
    const sandbox = await client.updateSandbox({
      params: { id: args.sandbox },
      body: {
        ...(options.name !== undefined && { name: options.name }),
        ...(options.keepHot !== undefined && { keep_hot: options.keepHot }),
        ...(options.allowCold !== undefined && { allow_cold: options.allowCold }),
        ...(netPolicy && { net_policy: netPolicy }),
        ...settingsOf(options),
        ...(options.label && { labels_add: options.label }),
        ...(options.labelDelete && { labels_remove: options.labelDelete }),
        ...(options.service.length > 0 && { services_add: servicesFrom(options.service) }),
        ...(options.serviceRemove.length > 0 && { services_remove: options.serviceRemove }),
      },
    })
    if (isJson) return await out.json(sandbox)
    const state = [
      `keep-hot ${sandbox.keep_hot ? "on" : "off"}`,
      `allow-cold ${sandbox.allow_cold ? "on" : "off"}`,
      `egress ${egressText(sandbox.net_policy)}`,
      ...settingLines(sandbox).map(([name, value]) => `${name.replace(" ", "-")} ${value}`),
      `labels ${labelsText(sandbox.labels)}`,
      ...(sandbox.services.length > 0
        ? [`services ${sandbox.services.map(({ name }) => name).join(" ")}`]
        : []),
    ]
    await out.result(`sandbox/${sandbox.name}: ${state.join(", ")}`)
  },
})
