"""From settings to objects: the only room that knows both."""

from iwin.build.accelerator import build_accelerator as build_accelerator
from iwin.build.data import TRANSFORMS as TRANSFORMS
from iwin.build.data import build_annotations as build_annotations
from iwin.build.data import build_dataset as build_dataset
from iwin.build.data import build_normalize as build_normalize
from iwin.build.data import build_reader as build_reader
from iwin.build.data import build_sampler as build_sampler
from iwin.build.data import build_transform as build_transform
from iwin.build.data import decoder_notes as decoder_notes
from iwin.build.data import training_loader as training_loader
from iwin.build.evaluation import build_evaluation as build_evaluation
from iwin.build.evaluation import build_test as build_test
from iwin.build.evaluation import check_metrics as check_metrics
from iwin.build.evaluation import view_average as view_average
from iwin.build.models import build_model as build_model
from iwin.build.models import create_model as create_model
from iwin.build.trained import Trained as Trained
from iwin.build.trained import checkpoint_metadata as checkpoint_metadata
from iwin.build.trained import load_trained as load_trained
from iwin.build.trained import stated_config as stated_config
from iwin.build.training import best_score as best_score
from iwin.build.training import build_blend as build_blend
from iwin.build.training import build_criterion as build_criterion
from iwin.build.training import build_training as build_training
from iwin.build.training import check_label_maps as check_label_maps
from iwin.build.training import start_from_weights as start_from_weights
