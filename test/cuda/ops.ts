// The op-case table on the CUDA device's simulator, beside the other devices' and not behind them.
process.env['CHIASMA_TEST_DEVICE'] ??= 'cuda-sim'
await import('../ops.js')
