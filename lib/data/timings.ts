// Where the time of a call goes. Stages overlap, and a stage has many items at once, so what is counted is the time in which a stage had
// any: a stage that is busy all the time is what the others wait for.

/** Seconds in which anything was in each stage; `total` is the whole call. */
export interface EmbedTimings {
  readonly total: number
  /** Reading files or downloading, and headers. */
  readonly read: number
  /** Image files to pixels. */
  readonly decode: number
  /** Orientation, resize and crop. */
  readonly preprocess: number
  readonly tokenise: number
  /** The model. */
  readonly compute: number
}

export type Stage = Exclude<keyof EmbedTimings, 'total'>

export class StageClock {
  private readonly started = performance.now()
  private readonly stages: Record<Stage, { inside: number; since: number; milliseconds: number }>

  constructor() {
    const empty = () => ({ inside: 0, since: 0, milliseconds: 0 })
    this.stages = { read: empty(), decode: empty(), preprocess: empty(), tokenise: empty(), compute: empty() }
  }

  async during<T>(name: Stage, work: () => Promise<T>): Promise<T> {
    const stage = this.stages[name]
    if (stage.inside++ === 0) stage.since = performance.now()
    try {
      return await work()
    } finally {
      if (--stage.inside === 0) stage.milliseconds += performance.now() - stage.since
    }
  }

  read(): EmbedTimings {
    const seconds = (name: Stage) => this.stages[name].milliseconds / 1000
    return {
      total: (performance.now() - this.started) / 1000,
      read: seconds('read'),
      decode: seconds('decode'),
      preprocess: seconds('preprocess'),
      tokenise: seconds('tokenise'),
      compute: seconds('compute'),
    }
  }
}

/** Runs `work`, on the clock if there is one. */
export function during<T>(clock: StageClock | undefined, stage: Stage, work: () => Promise<T>): Promise<T> {
  return clock ? clock.during(stage, work) : work()
}
