import type { Addon, NativeDevice, NativeProgram, NativeWeights, WeightSpec, WirePlan } from '../../typings/addon.js'

export const addon: Addon
export function identity(): WeightSpec
export function slowPlan(steps: number, rows?: number): WirePlan
export function slowProgram(
  steps: number,
  rows?: number,
  options?: { isa?: string; threads?: number },
): Promise<{ device: NativeDevice; weights: NativeWeights; program: NativeProgram }>
export function ramp(rows: number, first?: number): Float32Array
export function same(buffer: ArrayBuffer, expected: Float32Array): boolean
