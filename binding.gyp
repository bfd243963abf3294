# For `node-gyp rebuild` only: hands the build to CMakeLists.txt. The output never exists, so that the action always runs.
{
  "targets": [
    {
      "target_name": "chiasma",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake-js",
          "inputs": [],
          "outputs": ["<(PRODUCT_DIR)/always-run-cmake"],
          "action": ["node", "<(module_root_dir)/scripts/build-addon.mjs"]
        }
      ]
    }
  ]
}
