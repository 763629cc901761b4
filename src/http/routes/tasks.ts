/** Handlers of tasks. */

import { cancelTask, findTask, listTasks } from "../../core/tasks.ts"
import type { Handlers } from "../context.ts"
import { followedTask } from "../task-reply.ts"
import { viewTask } from "../views/task.ts"

export const tasks = {
  async listTasks({ core, account }) {
    // A hundred builds have printed too much for a list.
    return (await listTasks(core, account)).map((task) =>
      viewTask({ ...task, progress: { ...task.progress, output: null } }),
    )
  },

  async getTask({ core, account, params }) {
    return viewTask(await findTask(core, account, params.id))
  },

  async readTask({ core, account, params, revoked }) {
    await findTask(core, account, params.id)
    return followedTask(core, account, params.id, revoked)
  },

  async cancelTask({ core, account, params }) {
    return viewTask(await cancelTask(core, account, params.id))
  },
} satisfies Partial<Handlers>
