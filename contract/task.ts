/** Tasks: long work with an id, which goes on without the client that asked for it. */

import { z } from "zod"
import { TaskId, UserId } from "./ids.ts"

export const LayerProgress = z
  .object({ digest: z.string(), bytes: z.int(), total: z.int() })
  .describe("A layer: its bytes so far, and in all")

export const Task = z
  .object({
    id: TaskId,
    user_id: UserId,
    type: z.enum(["image.pull", "image.import", "image.save", "image.install", "image.build", "image.push"]),
    subject: z.string().describe("The name of its image"),
    status: z
      .enum(["running", "cancelling", "done", "failed", "cancelled", "interrupted"])
      .describe(
        "interrupted: the daemon ended meanwhile; nothing half made is left, and it can be asked for again",
      ),
    progress: z.object({
      step: z
        .string()
        .describe(
          "waiting, resolving, fetching, copying, packing, unpacking, pushing, replacing (an image of that name) or preparing; building, with what is done, for an image of the host; the instruction of a Dockerfile's build",
        ),
      layers: z.array(LayerProgress),
      output: z
        .object({ start: z.int().describe("Characters that came before the text"), text: z.string() })
        .nullable()
        .describe("The newest 64 KiB that a build has printed; null in a list, and for other tasks"),
    }),
    result: z
      .object({
        image: z.string(),
        id: z.string(),
        digest: z.string(),
        replaced: z
          .string()
          .optional()
          .describe(
            "Digest, or id, of the image that had the name before; sandboxes of that one keep its disk",
          ),
      })
      .nullable()
      .describe(
        "The image that it has made or pushed, with the digest in its registry; null until it is done",
      ),
    error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }).nullable(),
    created_at: z.iso.datetime(),
    completed_at: z.iso.datetime().nullable(),
  })
  .meta({ id: "Task" })
export type Task = z.infer<typeof Task>

export const StartedTask = z
  .object({
    task_id: TaskId.nullable(),
    status: z.enum(["running", "exists"]).describe("exists: the image is here already, and there is no task"),
    image: z.string().describe("The name that the image has, or will have"),
    digest: z.string().optional().describe("That of the image, if it is here already"),
  })
  .meta({ id: "StartedTask" })
export type StartedTask = z.infer<typeof StartedTask>

/** A line of a followed task: the task when it has changed, or the error that ends the answer. */
export const TaskLine = z.union([
  Task,
  z.object({ type: z.literal("error"), data: z.string(), code: z.string(), hint: z.string().nullable() }),
])
export type TaskLine = z.infer<typeof TaskLine>
