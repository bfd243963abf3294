// Which architecture a config.json means: by model_type, else by the class in `architectures`.

import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { Scope } from '../nn/index.js'
import { buildAlign } from './align.js'
import { buildBert } from './bert.js'
import { buildBlip } from './blip.js'
import { buildChineseClip } from './chinese-clip.js'
import { buildClip } from './clip.js'
import type { ConfigFile } from './config.js'
import { buildDinov2 } from './dinov2.js'
import { buildDinov3 } from './dinov3.js'
import { buildDistilBert } from './distilbert.js'
import { buildDualEncoder } from './dual-encoder.js'
import type { Architecture } from './encoder.js'
import { buildModernBert } from './modern-bert.js'
import { buildLxmert } from './lxmert.js'
import { buildMpnet } from './mpnet.js'
import { buildOpenClip } from './open-clip.js'
import { buildQwen3 } from './qwen3.js'
import { buildResNet } from './resnet.js'
import { buildSiglip } from './siglip.js'
import { buildSiglip2 } from './siglip2.js'
import { buildUniter } from './uniter.js'
import { buildTimmViT } from './timm-vit.js'
import { buildVilt } from './vilt.js'
import { buildVisualBert } from './visual-bert.js'
import { buildVlBert } from './vl-bert.js'
import { buildViT } from './vit.js'
import { buildWav2Vec2 } from './wav2vec2.js'
import { buildRoberta } from './xlm-roberta.js'

interface Entry {
  readonly build: (file: ConfigFile, scope: Scope, architecture: string) => Architecture
  /** The reference's classes begin with this. */
  readonly classes: string
  /** The class that is meant where config.json names none. */
  readonly usual: string
}

const entries: Readonly<Record<string, Entry>> = {
  clip: { build: buildClip, classes: 'CLIP', usual: 'CLIPModel' },
  clip_vision_model: { build: buildClip, classes: 'CLIPVision', usual: 'CLIPVisionModel' },
  clip_text_model: { build: buildClip, classes: 'CLIPText', usual: 'CLIPTextModel' },
  chinese_clip: { build: buildChineseClip, classes: 'ChineseCLIP', usual: 'ChineseCLIPModel' },
  chinese_clip_vision_model: { build: buildChineseClip, classes: 'ChineseCLIPVision', usual: 'ChineseCLIPVisionModel' },
  chinese_clip_text_model: { build: buildChineseClip, classes: 'ChineseCLIPText', usual: 'ChineseCLIPTextModel' },
  siglip: { build: buildSiglip, classes: 'Siglip', usual: 'SiglipModel' },
  siglip_vision_model: { build: buildSiglip, classes: 'SiglipVision', usual: 'SiglipVisionModel' },
  siglip_text_model: { build: buildSiglip, classes: 'SiglipText', usual: 'SiglipTextModel' },
  align: { build: buildAlign, classes: 'Align', usual: 'AlignModel' },
  align_vision_model: { build: buildAlign, classes: 'AlignVision', usual: 'AlignVisionModel' },
  align_text_model: { build: buildAlign, classes: 'AlignText', usual: 'AlignTextModel' },
  siglip2: { build: buildSiglip2, classes: 'Siglip2', usual: 'Siglip2Model' },
  siglip2_vision_model: { build: buildSiglip2, classes: 'Siglip2Vision', usual: 'Siglip2VisionModel' },
  siglip2_text_model: { build: buildSiglip2, classes: 'Siglip2Text', usual: 'Siglip2TextModel' },
  blip: { build: buildBlip, classes: 'Blip', usual: 'BlipModel' },
  blip_vision_model: { build: buildBlip, classes: 'BlipVision', usual: 'BlipVisionModel' },
  blip_text_model: { build: buildBlip, classes: 'BlipText', usual: 'BlipTextModel' },
  'vision-text-dual-encoder': {
    build: (file, scope) => buildDualEncoder(file, scope, buildArchitecture),
    ...{ classes: 'VisionTextDualEncoder', usual: 'VisionTextDualEncoderModel' },
  },
  dinov2: { build: buildDinov2, classes: 'Dinov2', usual: 'Dinov2Model' },
  dinov2_with_registers: { build: buildDinov2, classes: 'Dinov2WithRegisters', usual: 'Dinov2WithRegistersModel' },
  uniter: { build: buildUniter, classes: 'Uniter', usual: 'UniterModel' },
  vilt: { build: buildVilt, classes: 'Vilt', usual: 'ViltModel' },
  lxmert: { build: buildLxmert, classes: 'Lxmert', usual: 'LxmertModel' },
  'vl-bert': { build: buildVlBert, classes: 'VisualLinguisticBert', usual: 'VisualLinguisticBert' },
  visual_bert: { build: buildVisualBert, classes: 'VisualBert', usual: 'VisualBertModel' },
  wav2vec2: { build: buildWav2Vec2, classes: 'Wav2Vec2', usual: 'Wav2Vec2Model' },
  dinov3_vit: { build: buildDinov3, classes: 'DINOv3ViT', usual: 'DINOv3ViTModel' },
  /** Made of open_clip_config.json; see auto-model.ts. */
  open_clip: { build: buildOpenClip, classes: 'OpenClip', usual: 'OpenClip' },
  /** Made of timm's config.json and names; see auto-model.ts. */
  timm_vit: { build: buildTimmViT, classes: 'TimmWrapper', usual: 'TimmWrapperModel' },
  vit: { build: buildViT, classes: 'ViT', usual: 'ViTModel' },
  resnet: { build: buildResNet, classes: 'ResNet', usual: 'ResNetModel' },
  bert: { build: buildBert, classes: 'Bert', usual: 'BertModel' },
  distilbert: { build: buildDistilBert, classes: 'DistilBert', usual: 'DistilBertModel' },
  mpnet: { build: buildMpnet, classes: 'MPNet', usual: 'MPNetModel' },
  modernbert: { build: buildModernBert, classes: 'ModernBert', usual: 'ModernBertModel' },
  qwen3: { build: buildQwen3, classes: 'Qwen3', usual: 'Qwen3Model' },
  'xlm-roberta': { build: buildRoberta, classes: 'XLMRoberta', usual: 'XLMRobertaModel' },
  roberta: { build: buildRoberta, classes: 'Roberta', usual: 'RobertaModel' },
  camembert: { build: buildRoberta, classes: 'Camembert', usual: 'CamembertModel' },
}

/** model_type of the architectures there are. */
export const supportedModels: readonly string[] = Object.keys(entries)

/**
 * Builds the modules that a config.json describes; they ask `scope` for their parameters.
 * @throws CheckpointError for a field that is missing or absurd, UnsupportedError for an architecture that is not there
 */
export function buildArchitecture(file: ConfigFile, scope: Scope): Architecture {
  const { model_type: type, architectures } = file.json
  if (type != null && typeof type !== 'string') {
    throw new CheckpointError(`${file.file}: model_type is ${JSON.stringify(type)}; expected a name`, { file: file.file, field: 'model_type' })
  }
  const named: unknown = Array.isArray(architectures) ? architectures[0] : undefined
  const architecture = typeof named === 'string' ? named : undefined
  if (type == null && architecture === undefined) {
    throw new CheckpointError(`${file.file}: model_type is missing; expected one of ${supportedModels.join(', ')}`, { file: file.file, field: 'model_type' })
  }
  const entry = type != null ? (Object.hasOwn(entries, type) ? entries[type] : undefined) : byClass(architecture!)
  if (!entry) {
    const what = type != null ? `model_type '${type}'${architecture ? ` (${architecture})` : ''}` : `architecture '${architecture}'`
    throw new UnsupportedError(`${file.file}: ${what} is not supported; supported are ${supportedModels.join(', ')}`, { file: file.file, field: 'model_type' })
  }
  return entry.build(file, scope, architecture ?? entry.usual)
}

/** The longest prefix counts: CLIPVision before CLIP. */
function byClass(architecture: string): Entry | undefined {
  const fitting = Object.values(entries).filter(({ classes }) => architecture.startsWith(classes) && /^(Model|For|$|Vision|Text)/.test(architecture.slice(classes.length)))
  return fitting.sort((a, b) => b.classes.length - a.classes.length)[0]
}
