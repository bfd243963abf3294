"""Makes test/fixtures/regions: small .npz files of region features as others write them.

Run with Python 3.11, numpy 2.4.6: python make_region_fixtures.py ../fixtures/regions
"""

import os
import sys

import numpy as np

out = sys.argv[1]
features = np.arange(15, dtype=np.float32).reshape(3, 5) / 4
boxes = np.array([[0, 10, 50, 60], [20, 0, 100, 80], [5, 5, 15, 25]], np.float32)
np.savez(os.path.join(out, "plain.npz"), features=features, boxes=boxes, image_w=np.array(100), image_h=np.array(80))
np.savez_compressed(os.path.join(out, "turned.npz"), x=features.T.copy().astype(np.float16), bbox=boxes.astype(np.float64), image_w=100, image_h=80, num_bbox=2)
sides = boxes / np.array([100, 80, 100, 80], np.float32)
np.savez_compressed(os.path.join(out, "uniter.npz"), features=features.astype(np.float16), norm_bb=np.concatenate([sides, sides[:, 2:] - sides[:, :2]], 1).astype(np.float16), conf=np.ones(3, np.float16))
np.savez(os.path.join(out, "differs.npz"), features=features, boxes=boxes[:2], image_w=100, image_h=80)
