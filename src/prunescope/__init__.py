"""prunescope: when a vision network is pruned, does it still decide for the same reasons?

`import prunescope as ps` offers the parts below, each usable alone on your own network and data. They are imported at
first use, so importing the package is quick and does not import torchvision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prunescope.core.errors import PrunescopeError as PrunescopeError
    from prunescope.core.mask import Mask as Mask
    from prunescope.core.types import Estimate as Estimate
    from prunescope.core.types import Record as Record
    from prunescope.data.augment import Augmentation as Augmentation
    from prunescope.data.load import load_data as load_data
    from prunescope.data.split import Dataset as Dataset
    from prunescope.data.split import Split as Split
    from prunescope.engine.ablation.answers import Effort as Effort
    from prunescope.engine.agreement import explanation_agreement as explanation_agreement
    from prunescope.engine.concept_agreement import concept_agreement as concept_agreement
    from prunescope.engine.cost import cost as cost
    from prunescope.engine.dissection import dissect as dissect
    from prunescope.engine.distillation import Distillation as Distillation
    from prunescope.engine.distillation import Teacher as Teacher
    from prunescope.engine.extremes import extremes as extremes
    from prunescope.engine.latency import compare_latency as compare_latency
    from prunescope.engine.mis import mis as mis
    from prunescope.engine.sees.look import Look as Look
    from prunescope.engine.sees.look import what_filters_see as what_filters_see
    from prunescope.engine.train import fit as fit
    from prunescope.engine.training import Training as Training
    from prunescope.engine.visualise import Ascent as Ascent
    from prunescope.engine.visualise import visualise as visualise
    from prunescope.models.checkpoint import Checkpoint as Checkpoint
    from prunescope.models.density import effective_density as effective_density
    from prunescope.models.export import export_onnx as export_onnx
    from prunescope.models.export import export_program as export_program
    from prunescope.models.graph import channel_graph as channel_graph
    from prunescope.models.layers import prunable as prunable
    from prunescope.models.packed import entropy_bound as entropy_bound
    from prunescope.models.packed import load_packed as load_packed
    from prunescope.models.packed import save_packed as save_packed
    from prunescope.models.receptive import receptive_fields as receptive_fields
    from prunescope.models.shrink import shrink as shrink
    from prunescope.models.weights import load_weights as load_weights
    from prunescope.models.weights import read_weights as read_weights
    from prunescope.models.zoo import build_model as build_model
    from prunescope.probes.attribution import attributions as attributions
    from prunescope.probes.base import Probe as Probe
    from prunescope.probes.base import measure as measure
    from prunescope.probes.base import probe as probe
    from prunescope.probes.car import car as car
    from prunescope.probes.faithfulness import faithfulness as faithfulness
    from prunescope.probes.gradcam import gradcam_maps as gradcam_maps
    from prunescope.probes.sanity import sanity as sanity
    from prunescope.probes.selectivity import selectivity as selectivity
    from prunescope.probes.similarity import similarity as similarity
    from prunescope.probes.tcav.probe import tcav as tcav
    from prunescope.pruning.compare import compare_removals as compare_removals
    from prunescope.pruning.compare import fine_tuning as fine_tuning
    from prunescope.pruning.granularity import granularity as granularity
    from prunescope.pruning.greedy import Until as Until
    from prunescope.pruning.greedy import greedy as greedy
    from prunescope.pruning.kept_out import removal_mask as removal_mask
    from prunescope.pruning.loop import rounds as rounds
    from prunescope.pruning.race import Race as Race
    from prunescope.pruning.recipe import Recipe as Recipe
    from prunescope.pruning.regrow import Regrow as Regrow
    from prunescope.pruning.removals import removal_curve as removal_curve
    from prunescope.pruning.removals import removal_order as removal_order
    from prunescope.pruning.schedule import Rewind as Rewind
    from prunescope.pruning.schedule import Schedule as Schedule
    from prunescope.pruning.scope import Sensitivity as Sensitivity
    from prunescope.pruning.scope import Table as Table
    from prunescope.pruning.scoring import Criterion as Criterion
    from prunescope.pruning.scoring import criterion as criterion
    from prunescope.pruning.scoring import cut as cut
    from prunescope.pruning.sensitivity import scan as scan
    from prunescope.pruning.shapley import shapley_values as shapley_values
    from prunescope.pruning.summary import layer_table as layer_table
    from prunescope.pruning.zeros import own_zeros as own_zeros
    from prunescope.report.build import build_report as build_report
    from prunescope.study.drift import drift as drift
    from prunescope.ticket.load import load_shrunk as load_shrunk
    from prunescope.ticket.prune import prune as prune
    from prunescope.ticket.shrink import shrink_folder as shrink_folder

_HOMES = {
    "PrunescopeError": "core.errors", "Mask": "core.mask", "Estimate": "core.types", "Record": "core.types",
    "Augmentation": "data.augment", "load_data": "data.load", "Dataset": "data.split", "Split": "data.split",
    "Effort": "engine.ablation.answers", "Look": "engine.sees.look", "what_filters_see": "engine.sees.look",
    "receptive_fields": "models.receptive", "car": "probes.car", "cost": "engine.cost",
    "extremes": "engine.extremes", "mis": "engine.mis", "dissect": "engine.dissection",
    "Distillation": "engine.distillation", "Teacher": "engine.distillation",
    "compare_latency": "engine.latency", "fit": "engine.train", "Training": "engine.training",
    "Ascent": "engine.visualise", "visualise": "engine.visualise",
    "Checkpoint": "models.checkpoint", "effective_density": "models.density", "export_onnx": "models.export",
    "export_program": "models.export", "channel_graph": "models.graph", "prunable": "models.layers",
    "entropy_bound": "models.packed", "load_packed": "models.packed", "save_packed": "models.packed",
    "shrink": "models.shrink", "load_weights": "models.weights", "read_weights": "models.weights",
    "build_model": "models.zoo", "measure": "probes.base", "Probe": "probes.base", "probe": "probes.base",
    "gradcam_maps": "probes.gradcam", "selectivity": "probes.selectivity",
    "similarity": "probes.similarity", "tcav": "probes.tcav.probe", "granularity": "pruning.granularity",
    "attributions": "probes.attribution", "faithfulness": "probes.faithfulness", "sanity": "probes.sanity",
    "rounds": "pruning.loop",
    "Recipe": "pruning.recipe", "Regrow": "pruning.regrow", "Rewind": "pruning.schedule",
    "Schedule": "pruning.schedule", "Sensitivity": "pruning.scope", "Table": "pruning.scope",
    "Criterion": "pruning.scoring", "criterion": "pruning.scoring", "cut": "pruning.scoring",
    "scan": "pruning.sensitivity", "layer_table": "pruning.summary", "own_zeros": "pruning.zeros",
    "build_report": "report.build", "drift": "study.drift", "load_shrunk": "ticket.load", "prune": "ticket.prune",
    "shrink_folder": "ticket.shrink", "explanation_agreement": "engine.agreement",
    "concept_agreement": "engine.concept_agreement", "greedy": "pruning.greedy", "Until": "pruning.greedy",
    "Race": "pruning.race",
    "removal_mask": "pruning.kept_out", "removal_curve": "pruning.removals", "removal_order": "pruning.removals",
    "shapley_values": "pruning.shapley", "compare_removals": "pruning.compare", "fine_tuning": "pruning.compare",
}  # fmt: skip

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prunescope' has no attribute {name!r}")
    return getattr(importlib.import_module(f"prunescope.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
