from .decayed_personal import DecayedPersonal as DecayedPersonal
from .personal_top import PersonalTop as PersonalTop
from .popularity import Popularity as Popularity
